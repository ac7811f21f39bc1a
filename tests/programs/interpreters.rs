//! CPython, QuickJS, Ruby and PHP.

use super::{data, fetched, program, twice};

#[test]
fn cpython() {
    twice(
        || program("python/python.wasm").args(["-c", "print(6*7)"]),
        |end| drop(end.status(0).prints("42\n").silent()),
    );
}

#[test]
fn cpython_with_its_library_on_a_volume() {
    let library = fetched("python-on-volume/python-3.11.3/usr");
    twice(
        || {
            program("python-on-volume/python-3.11.3.wasm")
                .volume(&library, "/usr:ro")
                .volume(&data(), "/in:ro")
                .args(["/in/app.py"])
        },
        |end| {
            drop(end.status(0).prints("{\"total\": 285, \"files\": [\"app.py\"]}\n").silent());
        },
    );
}

#[test]
fn mpmath() {
    let script = "from mpmath import mp; mp.dps = 1000; print(str(mp.pi)[-20:])";
    twice(
        || {
            program("python/python.wasm")
                .volume(&fetched("mpmath"), "/lib:ro")
                // Python would write what it compiles beside its source, which is read-only.
                .flags("-e PYTHONPATH=/lib -e PYTHONDONTWRITEBYTECODE=1")
                .args(["-c", script])
        },
        |end| drop(end.status(0).prints("76611195909216420199\n").silent()),
    );
}

/// The volume is what makes mpmath work: without the grant there is no such module.
#[test]
fn mpmath_without_its_grant() {
    let end = program("python/python.wasm")
        .flags("-e PYTHONPATH=/lib")
        .args(["-c", "import mpmath"])
        .end()
        .status(1)
        .prints("");
    assert!(end.err().contains("ModuleNotFoundError: No module named 'mpmath'"), "{end}");
}

#[test]
fn quickjs() {
    let script = r#"console.log([1,2,3].map(x=>x*14).join(","))"#;
    twice(
        || program("quickjs/quickjs.wasm").args(["-e", script]),
        |end| drop(end.status(0).prints("14,28,42\n").silent()),
    );
}

#[test]
fn ruby() {
    let script = "puts JSON.generate((1..5).map { |n| n * n })";
    twice(
        || program("ruby/ruby-3.2.0.wasm").args(["-rjson", "-e", script]),
        |end| drop(end.status(0).prints("[1,4,9,16,25]\n").silent()),
    );
}

/// The script ends with a status of its own, 3.
#[test]
fn php() {
    twice(
        || program("php/php-cgi-8.2.0.wasm").volume(&data(), "/in:ro").args(["-q", "/in/app.php"]),
        |end| drop(end.status(3).prints("3 59c28605f63b3e28902caca7fb940f82\n").silent()),
    );
}
