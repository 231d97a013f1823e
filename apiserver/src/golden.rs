//! Golden files of tests: `testdata/` holds what is expected; `UPDATE=1` rewrites it.

use std::fs;
use std::path::Path;

/// Compares `actual` with `testdata/NAME`, or writes it there if `UPDATE` is set.
#[track_caller]
pub fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().expect("testdata has a parent")).expect("create testdata");
        fs::write(&path, actual).expect("write the golden file");
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs (UPDATE=1 rewrites it)\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}
