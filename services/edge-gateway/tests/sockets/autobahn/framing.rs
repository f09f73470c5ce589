//! Sections 1 to 5: whole frames, pings, reserved bits, reserved opcodes, fragments.

use super::peer::{BINARY, CONTINUATION, Case, PING, PONG, TEXT};

const HELLO: &str = "Hello, world!";

pub fn cases() -> Vec<Case> {
    [whole(), pings(), reserved_bits(), reserved_opcodes(), fragments()].concat()
}

fn whole() -> Vec<Case> {
    let sizes = [0, 125, 126, 127, 128, 65_535, 65_536, 65_536];
    let mut cases = Vec::new();
    for (section, opcode, byte) in [(1, TEXT, b'*'), (2, BINARY, 0xfe)] {
        for (n, size) in sizes.into_iter().enumerate() {
            let payload = vec![byte; size];
            let case = Case::new(format!("1.{section}.{}", n + 1))
                .frame(0, opcode, &payload)
                .expect(opcode, payload)
                .clean();
            cases.push(if n == 7 { case.chopped(997) } else { case });
        }
    }
    cases
}

fn pings() -> Vec<Case> {
    let binary = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    let most = vec![0xfe; 125];
    let ten = |case: Case| {
        (0..10).fold(case, |case, n| {
            let payload = format!("payload-{n}");
            case.ping(&payload).expect(PONG, payload)
        })
    };
    vec![
        Case::new("2.1").ping("").expect(PONG, ""),
        Case::new("2.2").ping(HELLO).expect(PONG, HELLO),
        Case::new("2.3").ping(binary).expect(PONG, binary),
        Case::new("2.4").ping(&most).expect(PONG, most.clone()),
        Case::new("2.5").ping(vec![0xfe; 126]).fails(1002),
        Case::new("2.6").ping(&most).expect(PONG, most.clone()).chopped(1),
        Case::new("2.7").frame(0, PONG, ""),
        Case::new("2.8").frame(0, PONG, "unsolicited pong payload"),
        Case::new("2.9")
            .frame(0, PONG, "unsolicited pong payload")
            .ping("ping payload")
            .expect(PONG, "ping payload"),
        ten(Case::new("2.10")),
        ten(Case::new("2.11")).chopped(1),
    ]
}

fn reserved_bits() -> Vec<Case> {
    let after_text = |id: &str, reserved: u8| {
        Case::new(id)
            .text(HELLO)
            .frame(reserved, TEXT, HELLO)
            .ping("")
            .expect_text(HELLO)
            .fails(1002)
    };
    vec![
        Case::new("3.1").frame(1, TEXT, HELLO).fails(1002),
        after_text("3.2", 2),
        after_text("3.3", 3).chopped(7),
        after_text("3.4", 4).chopped(1),
        Case::new("3.5").frame(5, BINARY, [0x00, 0xff]).fails(1002),
        Case::new("3.6").frame(6, PING, HELLO).fails(1002),
        Case::new("3.7").frame(7, 8, "").fails(1002),
    ]
}

fn reserved_opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, first) in [(1, 3), (2, 11)] {
        for n in 0..5 {
            let case = Case::new(format!("4.{section}.{}", n + 1));
            let payload = if n % 2 == 0 { "" } else { HELLO };
            cases.push(match n {
                0 | 1 => case.frame(0, first + n, payload).fails(1002),
                _ => {
                    let case = case
                        .text(HELLO)
                        .frame(0, first + n, payload)
                        .ping("")
                        .expect_text(HELLO)
                        .fails(1002);
                    if n == 4 { case.chopped(1) } else { case }
                }
            });
        }
    }
    cases
}

fn fragments() -> Vec<Case> {
    let two = |case: Case| case.fragments(TEXT, [b"fragment1".as_slice(), b"fragment2"]);
    let with_ping = |id: &str| {
        Case::new(id)
            .raw(TEXT, "fragment1")
            .ping("ping payload")
            .raw(0x80 | CONTINUATION, "fragment2")
            .expect(PONG, "ping payload")
            .expect_text("fragment1fragment2")
    };
    let whole = |case: Case| case.expect_text("fragment1fragment2");
    let of_nothing = |id: &str, fin: u8| {
        Case::new(id)
            .raw(fin | CONTINUATION, "non-continuation payload")
            .text(HELLO)
            .fails(1002)
    };
    let twice = |id: &str, fin: u8| {
        (0..2)
            .fold(Case::new(id), |case, _| {
                case.raw(fin | CONTINUATION, "fragment1")
                    .raw(TEXT, "fragment2")
                    .raw(0x80 | CONTINUATION, "fragment3")
            })
            .fails(1002)
    };
    let five = |id: &str| {
        Case::new(id)
            .raw(TEXT, "fragment1")
            .raw(CONTINUATION, "fragment2")
            .ping("pongme 1!")
            .raw(CONTINUATION, "fragment3")
            .raw(CONTINUATION, "fragment4")
            .ping("pongme 2!")
            .raw(0x80 | CONTINUATION, "fragment5")
            .expect(PONG, "pongme 1!")
            .expect(PONG, "pongme 2!")
            .expect_text("fragment1fragment2fragment3fragment4fragment5")
    };
    vec![
        Case::new("5.1")
            .fragments(PING, [b"fragment1".as_slice(), b"fragment2"])
            .fails(1002),
        Case::new("5.2")
            .fragments(PONG, [b"fragment1".as_slice(), b"fragment2"])
            .fails(1002),
        whole(two(Case::new("5.3"))),
        whole(two(Case::new("5.4"))).chopped(15),
        whole(two(Case::new("5.5"))).chopped(1),
        with_ping("5.6"),
        with_ping("5.7").chopped(15),
        with_ping("5.8").chopped(1),
        of_nothing("5.9", 0x80),
        of_nothing("5.10", 0x80).chopped(30),
        of_nothing("5.11", 0x80).chopped(1),
        of_nothing("5.12", 0),
        of_nothing("5.13", 0).chopped(30),
        of_nothing("5.14", 0).chopped(1),
        whole(two(Case::new("5.15")))
            .raw(CONTINUATION, "fragment3")
            .text("fragment4")
            .fails(1002),
        twice("5.16", 0),
        twice("5.17", 0x80),
        Case::new("5.18")
            .raw(TEXT, "fragment1")
            .raw(0x80 | TEXT, "fragment2")
            .fails(1002),
        five("5.19"),
        five("5.20").chopped(1),
    ]
}
