//! Requests that no kernel would send: nothing of the host's is harmed, and nothing grows.

use super::*;
use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

/// How many requests a test sends.
const ROUNDS: u32 = 100_000;
/// Descriptors that the guest is granted.
const DESCRIPTORS: usize = 60;

/// Numbers that look random and are the same every time (xorshift64*).
struct Random {
    state: u64,
    /// Nodes and open files that the guest has heard of lately.
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { state: seed, nodes: vec![ROOT], handles: vec![0] }
    }

    /// Takes up what an answer tells of.
    fn learn(&mut self, answer: &[u8]) {
        match answer.len() {
            32 => self.handles.push(u64_at(answer, 16)),
            144 => self.nodes.push(u64_at(answer, 16)),
            160 => {
                self.nodes.push(u64_at(answer, 16));
                self.handles.push(u64_at(answer, 144));
            }
            _ => {}
        }
        for known in [&mut self.nodes, &mut self.handles] {
            let old = known.len().saturating_sub(30);
            known.drain(..old);
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 32) % end
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    /// Mostly a node that exists.
    fn node(&mut self) -> u64 {
        match self.below(20) {
            0 => self.next(),
            1 => self.below(40),
            2..9 => ROOT,
            _ => self.of(&self.nodes.clone()),
        }
    }

    /// Mostly a file that is open.
    fn handle(&mut self) -> u64 {
        match self.below(20) {
            0 => self.next(),
            1 => self.below(40),
            _ => self.of(&self.handles.clone()),
        }
    }

    fn number(&mut self) -> u64 {
        let limits = [0, 1, 4095, 4096, 1 << 20, 1 << 31, 1 << 32, i64::MAX as u64, u64::MAX];
        let number = self.of(&limits);
        if self.below(2) == 0 { number } else { self.below(5000) }
    }

    fn short(&mut self) -> u32 {
        self.number() as u32
    }

    fn flags(&mut self) -> u32 {
        let one = 1u32 << self.below(32);
        self.of(&[0, 1, 2, 0o1002, 0o100, 0o102, 0o2001, 3, one, one | 2, u32::MAX])
    }

    fn mode(&mut self) -> u32 {
        let kinds =
            [0, 0o010_000, 0o020_000, 0o040_000, 0o060_000, 0o100_000, 0o140_000, 0o170_000];
        self.of(&kinds) | (self.below(0o10000) as u32) | 0o700
    }

    fn name(&mut self) -> &'static str {
        const NAMES: [&str; 16] = [
            "a",
            "b",
            "c",
            "d",
            "e",
            "dir",
            "file",
            "link",
            "out",
            "pipe",
            "new",
            ".",
            "..",
            "../outside",
            "/etc/passwd",
            "",
        ];
        self.of(&NAMES)
    }

    /// Arguments as the operation has them, with values of all kinds.
    fn args(&mut self, op: Op) -> Bytes {
        let args = args();
        match op {
            Op::Lookup | Op::Unlink | Op::RmDir => args.name(self.name()),
            Op::Forget => args.n64(self.below(3)),
            Op::BatchForget => {
                args.n32(self.short()).n32(0).n64(self.node()).n64(1).n64(self.node()).n64(2)
            }
            Op::SetAttr => {
                let args =
                    args.n32(1 << self.below(12)).n32(0).n64(self.handle()).n64(self.number());
                let args = args.n64(0).n64(self.number()).n64(self.number()).n64(0);
                let args = args.n32(self.short()).n32(self.short()).n32(0).n32(self.mode());
                args.n32(0).n32(self.short()).n32(self.short()).n32(0)
            }
            Op::SymLink => args.name(self.name()).name(self.name()),
            Op::MkNod => args.n32(self.mode()).n32(self.short()).n64(0).name(self.name()),
            Op::MkDir => args.n32(self.mode()).n32(0).name(self.name()),
            Op::Rename => args.n64(self.node()).name(self.name()).name(self.name()),
            Op::Rename2 => {
                let flags = self.below(8);
                args.n64(self.node()).n64(flags).name(self.name()).name(self.name())
            }
            Op::Link => args.n64(self.node()).name(self.name()),
            Op::Open | Op::OpenDir => args.n32(self.flags()).n32(0),
            Op::Create => args.n32(self.flags()).n32(self.mode()).n64(0).name(self.name()),
            Op::Write => {
                let contents = vec![7; usize::try_from(self.below(3000)).unwrap()];
                let size = if self.below(4) == 0 { self.short() } else { contents.len() as u32 };
                let args = args.n64(self.handle()).n64(self.number()).n32(size).n32(self.short());
                args.n64(0).n32(self.flags()).n32(0).raw(&contents)
            }
            Op::FAllocate => {
                let mode = self.below(0x80) as u32;
                args.n64(self.handle()).n64(self.number()).n64(self.number()).n32(mode).n32(0)
            }
            Op::LSeek => {
                let whence = self.below(6) as u32;
                args.n64(self.handle()).n64(self.below(9000)).n32(whence).n32(0)
            }
            Op::Init => args.n32(7).n32(31).n32(self.short()).n32(self.short()),
            _ => args.n64(self.handle()).n64(self.number()).n32(self.short()).n32(0).n64(0).n64(0),
        }
    }

    /// A request of an operation, most often one that makes sense.
    fn request(&mut self, ops: &[Op]) -> Vec<u8> {
        let op = self.of(ops);
        let ids = (self.of(&[0, 1000, u32::MAX]), self.of(&[0, 1000, u32::MAX]));
        let mut bytes = request(op as u32, self.node(), ids, &self.args(op).0);
        for _ in 0..self.of(&[0, 0, 0, 0, 0, 0, 1, 2, 9]) {
            let at = usize::try_from(self.below(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << self.below(8);
        }
        match self.below(20) {
            0 => bytes.truncate(usize::try_from(self.below(bytes.len() as u64)).unwrap()),
            1 => bytes.extend([0xff; 40]),
            2 => bytes[..4].copy_from_slice(&self.short().to_le_bytes()),
            _ => {}
        }
        bytes
    }
}

/// A share with something beside it that is not the guest's.
fn share(access: Access) -> (tempfile::TempDir, Guest) {
    let all = tempfile::tempdir().unwrap();
    let share = all.path().join("share");
    fs::create_dir_all(share.join("dir/a")).unwrap();
    fs::create_dir(all.path().join("outside")).unwrap();
    write_file(&all.path().join("outside/file"), b"secret");
    for name in ["file", "a", "dir/file", "dir/a/b"] {
        write_file(&share.join(name), &[1; 5000]);
    }
    symlink("../outside", share.join("out")).unwrap();
    symlink("file", share.join("link")).unwrap();
    let options = Options {
        quota: Quota::new(Some(8 << 20)),
        descriptors: DESCRIPTORS,
        nodes: 200,
        ..options(access)
    };
    let server = Server::new(open_dir(&share), options).unwrap();
    (all, Guest { server, dir: tempfile::tempdir().unwrap(), room: 0 })
}

/// Sends requests by the thousand; returns how many of each operation were done.
fn attack(guest: &mut Guest, all: &Path, seed: u64) -> HashMap<u32, u32> {
    let mut random = Random::new(seed);
    // Few of those that undo what the others did.
    let ends = [Op::Init, Op::Destroy, Op::Forget, Op::BatchForget];
    let usual: Vec<Op> = Op::ALL.iter().copied().filter(|op| !ends.contains(op)).collect();
    let mut done = HashMap::<u32, u32>::new();
    for round in 0..ROUNDS {
        let ops = if random.below(200) == 0 { &ends[..] } else { &usual };
        let request = random.request(ops);
        guest.room = random.of(&[0, 15, 16, 100, 200, 4096, 4096, 4096, 4096, 2 << 20]);
        let answer = guest.raw(&request);
        let held = guest.server.nodes.descriptors();
        if held == 1 {
            random = Random { state: random.state, ..Random::new(0) };
        }
        random.learn(&answer);
        assert!(answer.len() <= guest.room);
        if answer.len() >= 16 && u32_at(&answer, 4) == 0 {
            *done.entry(u32_at(&request, 4)).or_default() += 1;
        }
        assert!(held <= DESCRIPTORS, "round {round}: {held}");
        if round % 1000 == 0 {
            assert!(descriptors_below(all) <= DESCRIPTORS, "round {round}");
        }
    }
    done
}

#[test]
fn nonsense_harms_nothing() {
    let (all, mut guest) = share(Access::ReadWrite);
    let outside = all.path().join("outside");
    let before = state(&outside);
    let done = attack(&mut guest, all.path(), 0x5EED);
    // It was more than noise: whatever has an answer got a good one.
    for op in Op::ALL {
        let silent = [Op::Forget, Op::BatchForget, Op::Interrupt].contains(op);
        assert_eq!(silent, !done.contains_key(&(*op as u32)), "{op:?}");
    }
    assert_eq!(state(&outside), before);
    let beside = fs::read_dir(all.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(beside.filter(|name| name != "share" && name != "outside").count(), 0);
    // Nothing that has rights of its own was made.
    let mut paths = vec![all.path().join("share")];
    while let Some(path) = paths.pop() {
        // A guest may have taken from itself the right to look.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        assert!(!meta.file_type().is_char_device() && !meta.file_type().is_block_device());
        assert_eq!(meta.mode() & 0o6000, 0, "{path:?}");
        if let (true, Ok(entries)) = (meta.is_dir(), fs::read_dir(&path)) {
            paths.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }
    guest.server.reset();
    assert_eq!(descriptors_below(all.path()), 1);
}

#[test]
fn nonsense_changes_no_read_only_share() {
    let (all, mut guest) = share(Access::ReadOnly);
    let before = state(all.path());
    let done = attack(&mut guest, all.path(), 0xC0FFEE);
    assert!(done.values().sum::<u32>() > ROUNDS / 20, "{done:?}");
    assert_eq!(state(all.path()), before);
}

#[test]
fn noise_is_survived() {
    let (all, mut guest) = share(Access::ReadWrite);
    let before = state(all.path());
    let mut random = Random::new(99);
    for _ in 0..ROUNDS {
        let len = random.of(&[0, 1, 39, 40, 41, 56, 128, 300]);
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        guest.room = random.of(&[0, 8, 16, 4096]);
        assert!(guest.raw(&bytes).len() <= guest.room);
    }
    assert_eq!(state(all.path()), before);
}

#[test]
fn unknown_operations_are_said_to_be_unknown() {
    let (_all, mut guest) = share(Access::ReadWrite);
    guest.room = 4096;
    for opcode in (0..5000).chain([u32::MAX]) {
        if Op::new(opcode).is_none() {
            let answer = guest.raw(&request(opcode, ROOT, (0, 0), &[0; 64]));
            assert_eq!(answer.len(), 16);
            assert_eq!(u32_at(&answer, 4).cast_signed(), -libc::ENOSYS, "{opcode}");
        }
    }
}

#[test]
fn arguments_are_bounded() {
    let (_all, mut guest) = share(Access::ReadWrite);
    guest.room = 4096;
    // Announced in the header, and there or not.
    for len in [17_000, 1 << 20] {
        let lookup = args().name(&"x".repeat(len));
        assert_eq!(guest.call(Op::Lookup, ROOT, lookup).unwrap_err(), Errno::INVAL);
    }
    let mut short = request(Op::Lookup as u32, ROOT, (0, 0), b"file\0");
    short[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(u32_at(&guest.raw(&short), 4).cast_signed(), -libc::EINVAL);
    // A target that no host takes.
    let target = "x".repeat(5000);
    assert_eq!(guest.sym_link(ROOT, "new", &target).unwrap_err(), Errno::NAMETOOLONG);
}
