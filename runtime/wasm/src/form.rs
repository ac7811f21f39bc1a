//! What a file is, decided from its bytes.

use sbx_core::{Error, Result};
use std::path::Path;

/// A workload that this backend runs, as it is written in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A core WebAssembly module in the binary format.
    Module,
    /// A WebAssembly component in the binary format.
    Component,
    /// Either of them in the text format.
    Text,
}

impl Form {
    /// Recognizes the bytes of the file at `path`, which is named in the errors only.
    ///
    /// # Errors
    /// Says what the file is instead, as far as that can be seen.
    pub fn of(bytes: &[u8], path: &Path) -> Result<Self> {
        let is = |what: &str| {
            let path = path.display();
            Err(Error::NotRunnable(format!(
                "{path} {what}; sbx runs WASI programs: core modules, components and .wat text"
            )))
        };
        match bytes {
            [] => is("is empty"),
            // The binary format's preamble: magic, version, and from component-model on a layer.
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Ok(Self::Module),
            [0, b'a', b's', b'm', _, _, 1, 0, ..] => Ok(Self::Component),
            [0, b'a', b's', b'm', ..] => is("is WebAssembly of an unknown version, or cut short"),
            [0x7f, b'E', b'L', b'F', ..] => is("is a native program (ELF), not WebAssembly"),
            [b'#', b'!', ..] => is("is a script, not WebAssembly"),
            [0x1f, 0x8b, ..] | [b'P', b'K', 3, 4, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                is("is a compressed file; unpack it first")
            }
            _ => match std::str::from_utf8(bytes) {
                Ok(text) if starts_a_module(text) => Ok(Self::Text),
                Ok(_) => is("is a text file that does not start with a WebAssembly (module"),
                Err(_) => is("is not WebAssembly"),
            },
        }
    }

    /// What users call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Module => "core module",
            Self::Component => "component",
            Self::Text => "text",
        }
    }
}

/// Whether the first thing in `text` that is neither space nor comment opens a module's or a
/// component's list. Block comments nest in this format.
fn starts_a_module(mut text: &str) -> bool {
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix(";;") {
            text = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if text.starts_with("(;") {
            let mut depth = 0usize;
            let mut end = text.len();
            for (i, pair) in text.as_bytes().windows(2).enumerate() {
                match pair {
                    b"(;" => depth += 1,
                    b";)" => depth = depth.saturating_sub(1),
                    _ => continue,
                }
                if depth == 0 {
                    end = i + 2;
                    break;
                }
            }
            text = &text[end..];
        } else {
            let list = text.strip_prefix('(').map(str::trim_start).unwrap_or_default();
            return ["module", "component", "func", "memory", "import", "export", "type"]
                .iter()
                .any(|word| list.starts_with(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Form> {
        Form::of(bytes, Path::new("x"))
    }

    #[test]
    fn what_runs() {
        assert_eq!(of(b"\0asm\x01\0\0\0").unwrap(), Form::Module);
        assert_eq!(of(b"\0asm\x0d\0\x01\0").unwrap(), Form::Component);
        for text in ["(module)", " ;; a\n (; b (; c ;) ;)\n( component)", "(func)"] {
            assert_eq!(of(text.as_bytes()).unwrap(), Form::Text, "{text}");
        }
    }

    #[test]
    fn what_does_not() {
        for (bytes, word) in [
            (&b""[..], "empty"),
            (b"\0asm\x07\0\0\0", "version"),
            (b"\0asm", "cut short"),
            (b"\x7fELF\x02", "native"),
            (b"#!/bin/sh", "script"),
            (b"hello", "text file"),
            (b"(; never closed", "text file"),
            (b";; only a comment", "text file"),
            (b"\xff\xfe\x00", "not WebAssembly"),
        ] {
            let error = of(bytes).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.status(), 126);
        }
    }
}
