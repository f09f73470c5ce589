//! Sections 9 and 10: large messages, many fragments, many writes, many messages.

use super::peer::{BINARY, Case, TEXT};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const SECTIONS: [(u8, u8); 2] = [(1, TEXT), (2, BINARY)];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, opcode) in SECTIONS {
        for (n, size) in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB]
            .into_iter()
            .enumerate()
        {
            let payload = bytes(opcode, size);
            cases.push(
                Case::new(format!("9.{section}.{}", n + 1))
                    .frame(0, opcode, &payload)
                    .expect(opcode, payload),
            );
        }
    }
    for (section, opcode) in SECTIONS {
        let sizes = [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];
        for (n, size) in sizes.into_iter().enumerate() {
            let payload = bytes(opcode, 4 * MIB);
            cases.push(
                Case::new(format!("9.{}.{}", section + 2, n + 1))
                    .fragments(opcode, payload.chunks(size))
                    .expect(opcode, payload.clone()),
            );
        }
        for (n, size) in [64, 128, 256, 512, KIB, 2 * KIB].into_iter().enumerate() {
            let payload = bytes(opcode, MIB);
            cases.push(
                Case::new(format!("9.{}.{}", section + 4, n + 1))
                    .frame(0, opcode, &payload)
                    .expect(opcode, payload)
                    .chopped(size),
            );
        }
        for (n, size) in [0, 16, 64, 256, KIB, 4 * KIB].into_iter().enumerate() {
            let payload = bytes(opcode, size);
            let case = Case::new(format!("9.{}.{}", section + 6, n + 1));
            cases.push((0..1000).fold(case, |case, _| {
                case.frame(0, opcode, &payload).expect(opcode, payload.clone())
            }));
        }
    }
    let payload = bytes(TEXT, 64 * KIB);
    cases.push(
        Case::new("10.1.1")
            .fragments(TEXT, payload.chunks(1300))
            .expect(TEXT, payload.clone()),
    );
    cases
}

fn bytes(opcode: u8, size: usize) -> Vec<u8> {
    vec![if opcode == TEXT { b'*' } else { 0xfe }; size]
}
