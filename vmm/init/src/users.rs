//! Users and groups, as the root's own /etc/passwd and /etc/group name them.
//!
//! Numbers need no such file. Name services other than these two files are not asked.

use alloc::vec::Vec;

/// What a process is to run as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// Finds `USER[:GROUP]` in the two files. A user that is a number need not be there, and is then in
/// group 0; a group that is given replaces the user's own and all supplementary ones.
pub(crate) fn find(wanted: &str, passwd: &[u8], group: &[u8]) -> Option<Identity> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let number = id(user.as_bytes());
    let entry = lines(passwd)
        .filter_map(|line| Some((*line.first()?, id(line.get(2)?)?, id(line.get(3)?)?)))
        .find(|&(name, uid, _)| name == user.as_bytes() || number == Some(uid));
    let (name, uid, gid) = match (entry, number) {
        (Some(entry), _) => entry,
        (None, Some(uid)) => (&b""[..], uid, 0),
        (None, None) => return None,
    };
    if let Some(wanted) = wanted_group {
        let gid = match id(wanted.as_bytes()) {
            Some(gid) => gid,
            None => lines(group)
                .find(|line| line.first() == Some(&wanted.as_bytes()))
                .and_then(|line| id(line.get(2)?))?,
        };
        return Some(Identity { uid, gid, groups: Vec::new() });
    }
    let groups = lines(group)
        .filter(|line| {
            let members = line.get(3).copied().unwrap_or_default();
            !name.is_empty() && members.split(|&byte| byte == b',').any(|member| member == name)
        })
        .filter_map(|line| id(line.get(2)?))
        .collect();
    Some(Identity { uid, gid, groups })
}

/// The fields of each line.
fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|&byte| byte == b'\n').map(|line| line.split(|&byte| byte == b':').collect())
}

/// A number that can be a user's or a group's: the kernel takes the highest for "none".
fn id(digits: &[u8]) -> Option<u32> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    let number: u32 = core::str::from_utf8(digits).ok()?.parse().ok()?;
    (plain && number != u32::MAX).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# a remark\nbroken:x\n\
        web:x:33:34::/:/bin/sh\n1000:x:7:8::/:\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:34:\nmail:x:8:web,root\nlog:x:4:other,web\nnobody\n";

    fn identity(uid: u32, gid: u32, groups: &[u32]) -> Option<Identity> {
        Some(Identity { uid, gid, groups: groups.to_vec() })
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        let cases = [
            ("root", identity(0, 0, &[8])),
            ("web", identity(33, 34, &[8, 4])),
            ("33", identity(33, 34, &[8, 4])),
            ("web:mail", identity(33, 8, &[])),
            ("web:1234", identity(33, 1234, &[])),
            ("5000", identity(5000, 0, &[])),
            ("5000:5001", identity(5000, 5001, &[])),
            // The name comes before the number.
            ("1000", identity(7, 8, &[])),
            ("broken", None),
            ("nobody", None),
            ("web:nosuch", None),
            ("web:nobody", None),
            ("", None),
            (":34", None),
            ("web:", None),
            ("+5", None),
            ("-1", None),
            ("4294967295", None),
            ("4294967296", None),
        ];
        for (wanted, expected) in cases {
            assert_eq!(find(wanted, PASSWD, GROUP), expected, "{wanted}");
        }
    }

    #[test]
    fn without_files_there_are_numbers_only() {
        assert_eq!(find("1:2", b"", b""), identity(1, 2, &[]));
        assert_eq!(find("root", b"", b""), None);
    }
}
