//! Guest memory: the only file that maps it, and so the only one here with `mmap`'s `unsafe`.

/// The memory of a guest, as every device sees it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
