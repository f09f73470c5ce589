//! Section 7: the closing handshake.

use super::peer::{CLOSE, CONTINUATION, Case, End, TEXT};

const HELLO: &str = "Hello World!";

pub fn cases() -> Vec<Case> {
    let long = "BAsd7&jh23".repeat(26_000);
    let mut cases = vec![
        Case::new("7.1.1")
            .text(HELLO)
            .close(1000, "")
            .expect_text(HELLO)
            .answered(1000),
        Case::new("7.1.2").close(1000, "").close(1000, "").answered(1000),
        Case::new("7.1.3").close(1000, "").ping("").answered(1000),
        Case::new("7.1.4").close(1000, "").text(HELLO).answered(1000),
        Case::new("7.1.5")
            .raw(TEXT, "fragment1")
            .close(1000, "")
            .raw(0x80 | CONTINUATION, "fragment2")
            .answered(1000),
        Case::new("7.1.6")
            .text(&long)
            .text(HELLO)
            .close(1000, "")
            .ping("")
            .expect_text(long)
            .expect_text(HELLO)
            .may_miss()
            .answered(1000),
        Case::new("7.3.1").frame(0, CLOSE, "").ends(End::Answered(None)),
        Case::new("7.3.2").frame(0, CLOSE, "a").fails(1002),
        Case::new("7.3.3").close(1000, "").answered(1000),
        Case::new("7.3.4").close(1000, HELLO).answered(1000),
        Case::new("7.3.5").close(1000, "*".repeat(123)).answered(1000),
        Case::new("7.3.6").close(1000, "*".repeat(124)).fails(1002),
        Case::new("7.5.1")
            .close(
                1000,
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
            )
            .fails(1007),
    ];
    let may = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ];
    cases.extend(
        may.into_iter()
            .enumerate()
            .map(|(n, code)| Case::new(format!("7.7.{}", n + 1)).close(code, "").answered(code)),
    );
    let may_not = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    cases.extend(
        may_not
            .into_iter()
            .enumerate()
            .map(|(n, code)| Case::new(format!("7.9.{}", n + 1)).close(code, "").fails(1002)),
    );
    // The list leaves open what becomes of codes nobody has defined.
    cases.extend([5000, u16::MAX].into_iter().enumerate().map(|(n, code)| {
        Case::new(format!("7.13.{}", n + 1))
            .close(code, "")
            .ends(End::Either(code, 1002))
    }));
    cases
}
