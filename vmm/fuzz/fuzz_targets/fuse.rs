//! Requests to the server of a shared directory, each with a header that holds, and with names,
//! node numbers and handles that are often there.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sbx_fuzz::shared::Shared;
use sbx_vmm::fs::{Access, Server};

/// Operations beyond this number are all unknown.
const OPCODES: u8 = 50;
const INIT: u8 = 26;

/// A part of a request's arguments.
#[derive(Arbitrary, Debug)]
enum Part {
    /// A name that is likely there, or one that must be refused.
    Name(u8),
    /// A small number: a node, a handle, flags.
    Small(u8),
    Half(u32),
    Whole(u64),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Request {
    opcode: u8,
    node: u8,
    user: u16,
    parts: Vec<Part>,
    room: u16,
    /// What the header says of the length, where it lies.
    len: Option<u32>,
}

const NAMES: [&[u8]; 12] =
    [b"f", b"d", b"l", b"m", b"x", b"y", b".", b"..", b"../o", b"f/x", b"", b"m/o"];

fn args(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Name(index) => {
                bytes.extend(NAMES[usize::from(*index) % NAMES.len()]);
                bytes.push(0);
            }
            Part::Small(number) => bytes.extend(u64::from(*number).to_le_bytes()),
            Part::Half(number) => bytes.extend(number.to_le_bytes()),
            Part::Whole(number) => bytes.extend(number.to_le_bytes()),
            Part::Bytes(more) => bytes.extend(more),
        }
    }
    bytes
}

fn serve(server: &mut Server, request: &Request) {
    let args = args(&request.parts);
    let len = request.len.unwrap_or(40 + args.len() as u32);
    let mut bytes = [len, u32::from(request.opcode % OPCODES)].map(u32::to_le_bytes).concat();
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(u64::from(request.node % 16).to_le_bytes());
    bytes.extend(u32::from(request.user).to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(args);
    let room = usize::from(request.room);
    let (mut head, mut body) = (Vec::new(), Vec::new());
    let written = server.serve(&mut &bytes[..], &mut head, &mut body, room);
    assert!(written <= room);
    assert!(head.len() + body.len() <= room.max(16));
}

fuzz_target!(|input: (u8, Vec<Request>)| {
    let (access, requests) = input;
    let access = [Access::ReadWrite, Access::ReadOnly, Access::Root][usize::from(access % 3)];
    let shared = Shared::new();
    let mut server = shared.server(access);
    let init = [7u32, 31, 1 << 20, u32::MAX].map(Part::Half).into();
    serve(
        &mut server,
        &Request { opcode: INIT, node: 0, user: 0, parts: init, room: 4096, len: None },
    );
    requests.iter().for_each(|request| serve(&mut server, request));
    shared.check(access);
});
