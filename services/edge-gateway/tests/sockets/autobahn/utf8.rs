//! Section 6: text is UTF-8, and what cannot become UTF-8 any more is refused before the rest has come.

use super::peer::{Case, TEXT};

/// With an accent of three bytes.
const GREEK: &str = "κ\u{1f79}σμε";

pub fn cases() -> Vec<Case> {
    let mixed = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    let broken = [GREEK.as_bytes(), b"\xed\xa0\x80", b"edited"].concat();
    let whole = |case: Case, bytes: &[u8]| case.expect(TEXT, bytes);
    let mut cases = vec![
        whole(Case::new("6.1.1").text(""), b""),
        whole(Case::new("6.1.2").fragments(TEXT, [b"".as_slice(); 3]), b""),
        whole(
            Case::new("6.1.3").fragments(TEXT, [b"".as_slice(), b"middle frame payload", b""]),
            b"middle frame payload",
        ),
        whole(Case::new("6.2.1").text(mixed), mixed),
        whole(
            Case::new("6.2.2").fragments(TEXT, [&mixed[..12], &mixed[12..]]),
            mixed,
        ),
        whole(Case::new("6.2.3").fragments(TEXT, mixed.chunks(1)), mixed),
        whole(
            Case::new("6.2.4").fragments(TEXT, GREEK.as_bytes().chunks(1)),
            GREEK.as_bytes(),
        ),
        Case::new("6.3.1").text(&broken).fails(1007),
        Case::new("6.3.2").fragments(TEXT, broken.chunks(1)).fails(1007),
        // The rest never comes: the answer may not wait for it.
        Case::new("6.4.1")
            .raw(TEXT, GREEK)
            .raw(0, b"\xf4\x90\x80\x80")
            .fails(1007),
        Case::new("6.4.2")
            .raw(TEXT, [GREEK.as_bytes(), b"\xf4"].concat())
            .raw(0, b"\x90")
            .fails(1007),
        half_a_frame("6.4.3", &[GREEK.as_bytes(), b"\xf4\x90\x80\x80"].concat()),
        half_a_frame("6.4.4", &[GREEK.as_bytes(), b"\xf4\x90"].concat()),
    ];
    for (section, sequences) in sections() {
        for (n, (bytes, valid)) in sequences.into_iter().enumerate() {
            let case = Case::new(format!("6.{section}.{}", n + 1)).text(&bytes);
            cases.push(if valid {
                whole(case, &bytes)
            } else {
                case.fails(1007)
            });
        }
    }
    cases
}

/// One frame of which only the beginning comes.
fn half_a_frame(id: &str, beginning: &[u8]) -> Case {
    Case::new(id)
        .text([beginning, b"edited"].concat())
        .cut("edited".len())
        .fails(1007)
}

type Sequences = Vec<(Vec<u8>, bool)>;

/// The sequences of Markus Kuhn's UTF-8 decoder test, by section of the list.
fn sections() -> Vec<(u8, Sequences)> {
    let greek = GREEK.as_bytes();
    let each_then_space =
        |first: u8, last: u8| -> Vec<u8> { (first..=last).flat_map(|byte| [byte, b' ']).collect() };
    let cut_short: [&[u8]; 10] = [
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ];
    vec![
        (
            5,
            good(&[
                b"hello\x24world",
                b"hello\xc2\xa2world",
                b"hello\xe2\x82\xacworld",
                b"hello\xf0\xa4\xad\xa2world",
                greek,
            ]),
        ),
        (
            6,
            (1..=greek.len())
                .map(|end| (greek[..end].to_vec(), GREEK.is_char_boundary(end)))
                .collect(),
        ),
        (
            7,
            good(&[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]),
        ),
        (8, bad(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"])),
        (
            9,
            good(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]),
        ),
        (
            10,
            bad(&[
                b"\xf7\xbf\xbf\xbf",
                b"\xfb\xbf\xbf\xbf\xbf",
                b"\xfd\xbf\xbf\xbf\xbf\xbf",
            ]),
        ),
        (
            11,
            [
                good(&[
                    b"\xed\x9f\xbf",
                    b"\xee\x80\x80",
                    b"\xef\xbf\xbd",
                    b"\xf4\x8f\xbf\xbf",
                ]),
                bad(&[b"\xf4\x90\x80\x80"]),
            ]
            .concat(),
        ),
        (
            12,
            [
                bad(&[
                    b"\x80",
                    b"\xbf",
                    b"\x80\xbf",
                    b"\x80\xbf\x80",
                    b"\x80\xbf\x80\xbf",
                    b"\x80\xbf\x80\xbf\x80",
                    b"\x80\xbf\x80\xbf\x80\xbf",
                ]),
                vec![((0x80..=0xbf).collect(), false)],
            ]
            .concat(),
        ),
        (
            13,
            [
                (0xc0, 0xdf),
                (0xe0, 0xef),
                (0xf0, 0xf7),
                (0xf8, 0xfb),
                (0xfc, 0xfd),
            ]
            .map(|(first, last)| (each_then_space(first, last), false))
            .to_vec(),
        ),
        (14, bad(&cut_short)),
        (15, bad(&[&cut_short.concat()])),
        (16, bad(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"])),
        (
            17,
            bad(&[
                b"\xc0\xaf",
                b"\xe0\x80\xaf",
                b"\xf0\x80\x80\xaf",
                b"\xf8\x80\x80\x80\xaf",
                b"\xfc\x80\x80\x80\x80\xaf",
            ]),
        ),
        (
            18,
            bad(&[
                b"\xc1\xbf",
                b"\xe0\x9f\xbf",
                b"\xf0\x8f\xbf\xbf",
                b"\xf8\x87\xbf\xbf\xbf",
                b"\xfc\x83\xbf\xbf\xbf\xbf",
            ]),
        ),
        (
            19,
            bad(&[
                b"\xc0\x80",
                b"\xe0\x80\x80",
                b"\xf0\x80\x80\x80",
                b"\xf8\x80\x80\x80\x80",
                b"\xfc\x80\x80\x80\x80\x80",
            ]),
        ),
        (
            20,
            bad(&[
                b"\xed\xa0\x80",
                b"\xed\xad\xbf",
                b"\xed\xae\x80",
                b"\xed\xaf\xbf",
                b"\xed\xb0\x80",
                b"\xed\xbe\x80",
                b"\xed\xbf\xbf",
            ]),
        ),
        (
            21,
            bad(&[
                b"\xed\xa0\x80\xed\xb0\x80",
                b"\xed\xa0\x80\xed\xbf\xbf",
                b"\xed\xad\xbf\xed\xb0\x80",
                b"\xed\xad\xbf\xed\xbf\xbf",
                b"\xed\xae\x80\xed\xb0\x80",
                b"\xed\xae\x80\xed\xbf\xbf",
                b"\xed\xaf\xbf\xed\xb0\x80",
                b"\xed\xaf\xbf\xed\xbf\xbf",
            ]),
        ),
        // The last two code points of each plane: not characters, but text.
        (
            22,
            (0..=16)
                .flat_map(|plane| [0xfffe, 0xffff].map(|last| plane << 16 | last))
                .map(encoded)
                .collect(),
        ),
        (23, (0xfff9..=0xffff).map(encoded).collect()),
    ]
}

fn good(sequences: &[&[u8]]) -> Sequences {
    sequences.iter().map(|bytes| (bytes.to_vec(), true)).collect()
}

fn bad(sequences: &[&[u8]]) -> Sequences {
    sequences.iter().map(|bytes| (bytes.to_vec(), false)).collect()
}

fn encoded(code_point: u32) -> (Vec<u8>, bool) {
    (char::from_u32(code_point).unwrap().to_string().into_bytes(), true)
}
