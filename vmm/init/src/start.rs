//! What the C library would bring: the entry, memory, and what compiled code calls by name.
//!
//! Everything here relies on init being one thread.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int};
use core::panic::PanicInfo;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;

/// All memory that init can have. The kernel gives a page only when it is first used.
const ARENA: usize = 32 << 20;

struct Memory {
    heap: UnsafeCell<Heap>,
    arena: UnsafeCell<[u8; ARENA]>,
}

// SAFETY: there is one thread.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory =
    Memory { heap: UnsafeCell::new(Heap::empty()), arena: UnsafeCell::new([0; ARENA]) };

// SAFETY: the heap gives out what the layout asks for, each piece once until it is given back.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and the heap does not call back.
        let heap = unsafe { &mut *self.heap.get() };
        heap.allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: one thread, and the heap does not call back.
        let heap = unsafe { &mut *self.heap.get() };
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller promises that `alloc` gave it with this layout.
            unsafe { heap.deallocate(pointer, layout) };
        }
    }
}

/// Where the kernel starts the program: with the stack pointer at the count of arguments.
///
/// # Safety
/// For the kernel only.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {}", "ud2", sym enter)
}

/// # Safety
/// `stack` must be what the kernel gives a new program: the count of arguments, pointers to them, a null,
/// pointers to the environment, a null.
unsafe extern "C" fn enter(stack: *const usize) -> ! {
    sbx_init::first();
    // SAFETY: nothing was allocated before, and the arena is nobody else's.
    let heap = unsafe { &mut *MEMORY.heap.get() };
    // SAFETY: as above; the arena lives as long as the program.
    unsafe { heap.init(MEMORY.arena.get().cast(), ARENA) };
    // SAFETY: the count comes first.
    let count = unsafe { stack.read() };
    // SAFETY: the list follows, and ends with a null.
    let arguments = unsafe { strings(stack.add(1).cast()) };
    // SAFETY: the second list follows the null of the first.
    let environment = unsafe { strings(stack.add(count + 2).cast()) };
    sbx_init::main(&arguments, &environment)
}

/// # Safety
/// `list` must point to pointers to strings, and a null after them, which live as long as the program.
unsafe fn strings(mut list: *const *const c_char) -> Vec<&'static CStr> {
    let mut all = Vec::new();
    loop {
        // SAFETY: no null was met so far, so there is a next one.
        let string = unsafe { list.read() };
        if string.is_null() {
            return all;
        }
        // SAFETY: the caller's promise.
        all.push(unsafe { CStr::from_ptr(string) });
        // SAFETY: at most the null is next.
        list = unsafe { list.add(1) };
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    sbx_init::panicked(info)
}

// The compiler calls these by name. They are written in assembler because it would turn a loop into a
// call of the very function it is in.

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller promises `count` bytes at both, which do not overlap; the direction flag is
    // clear between functions.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= count {
        // SAFETY: forward is right unless `to` begins within what is yet to be read.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
    } else {
        // SAFETY: `count` is not 0 here. Backward, from the last byte of each; the flag is cleared again.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") count => _,
                inout("rdi") to.wrapping_add(count - 1) => _,
                inout("rsi") from.wrapping_add(count - 1) => _, options(nostack));
        }
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: c_int, count: usize) -> *mut u8 {
    // SAFETY: the caller promises `count` bytes.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _,
            in("al") value.to_le_bytes()[0], options(nostack, preserves_flags));
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> c_int {
    let (a, b): (u32, u32);
    // SAFETY: the caller promises `count` bytes at both. Ends with the first pair that differs, or the
    // last; with no bytes at all, both results are 0.
    unsafe {
        asm!("xor {a:e}, {a:e}", "xor {b:e}, {b:e}", "test rcx, rcx", "jz 2f", "repe cmpsb",
            "movzx {a:e}, byte ptr [rdi - 1]", "movzx {b:e}, byte ptr [rsi - 1]", "2:",
            a = out(reg) a, b = out(reg) b,
            inout("rcx") count => _, inout("rdi") left => _, inout("rsi") right => _,
            options(nostack, readonly));
    }
    a.cast_signed() - b.cast_signed()
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> c_int {
    // SAFETY: the same promise.
    unsafe { memcmp(left, right, count) }
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let rest: usize;
    // SAFETY: the caller promises a zero byte at the end, where this stops.
    unsafe {
        asm!("repne scasb", inout("rcx") usize::MAX => rest, inout("rdi") string => _, in("al") 0_u8,
            options(nostack, readonly));
    }
    usize::MAX - rest - 1
}

/// Named by code that was compiled to unwind, and never called: a panic ends the program.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As `rust_eh_personality`.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sbx_init::sys::exit(134)
}
