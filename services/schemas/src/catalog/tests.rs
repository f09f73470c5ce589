use super::*;

const V1: &str = r#"{"x-roomcast-type":"booking:new","$id":"https://desk.example/booking/1",
  "type":"object","required":["id"],"properties":{"id":{"type":"string"},"amount":{"type":"number"}}}"#;
const V2: &str = r#"{"x-roomcast-type":"booking:new","x-roomcast-version":2,"$id":"https://desk.example/booking/2",
  "type":"object","required":["id","amount"],"properties":{"id":{"type":"string"},"amount":{"type":"string"}}}"#;

fn catalog(texts: &[&str]) -> Catalog {
    Catalog::new(schemas(texts)).unwrap()
}

fn schemas(texts: &[&str]) -> Vec<Schema> {
    let named = |(index, text): (usize, &&str)| Schema::parse(&format!("{index}.json"), text).unwrap();
    texts.iter().enumerate().map(named).collect()
}

/// `expected`: the pointer, and a part of the words.
#[track_caller]
fn check(catalog: &Catalog, dataschema: Option<&str>, data: &str, expected: Result<(), (&str, &str)>) {
    let found = catalog.check("booking:new", dataschema, Data::Json(data));
    match (&found, expected) {
        (Ok(()), Ok(())) => {}
        (Err(breach), Err((pointer, words))) => {
            assert_eq!(breach.pointer, pointer, "{data}: {breach:?}");
            assert!(breach.detail.contains(words), "{data}: {breach:?}");
        }
        _ => panic!("{data}: {found:?}, expected {expected:?}"),
    }
}

#[test]
fn data_is_checked_and_the_pointer_says_where() {
    let one = catalog(&[V1]);
    check(&one, None, r#"{"id":"a","amount":1.5}"#, Ok(()));
    check(&one, None, r#"{"id":"a","more":[1]}"#, Ok(()));
    check(
        &one,
        None,
        r#"{"id":7}"#,
        Err((
            "/data/id",
            "version 1 of the schema of booking:new at /data/id: the value is not of type",
        )),
    );
    check(
        &one,
        None,
        r#"{"amount":1}"#,
        Err(("/data", "\"id\" is a required property")),
    );
    check(&one, None, "null", Err(("/data", "not of type")));
    check(
        &one,
        None,
        "1e999",
        Err(("/data", "holds what no schema can check")),
    );
    assert_eq!(
        one.check("booking:new", None, Data::Bytes).unwrap_err().pointer,
        "/data_base64"
    );
    assert_eq!(one.check("another", None, Data::Bytes), Ok(()));
}

#[test]
fn what_an_event_holds_is_not_shown() {
    let one = catalog(&[V1]);
    let secret = "x".repeat(40_000);
    let breach = one
        .check(
            "booking:new",
            None,
            Data::Json(&format!(r#"{{"id":["{secret}"]}}"#)),
        )
        .unwrap_err();
    assert!(
        !breach.detail.contains("xx") && breach.detail.len() < 500,
        "{}",
        breach.detail
    );
}

#[test]
fn versions_stand_side_by_side_until_an_event_names_one() {
    let both = catalog(&[V1, V2]);
    check(&both, None, r#"{"id":"a","amount":1}"#, Ok(()));
    check(&both, None, r#"{"id":"a","amount":"1"}"#, Ok(()));
    check(
        &both,
        None,
        r#"{"id":"a","amount":true}"#,
        Err((
            "/data/amount",
            "all 2 versions of the schema of booking:new, version 2 at /data/amount:",
        )),
    );
    let two = Some("https://desk.example/booking/2");
    check(&both, two, r#"{"id":"a","amount":"1"}"#, Ok(()));
    check(
        &both,
        two,
        r#"{"id":"a","amount":1}"#,
        Err(("/data/amount", "version 2")),
    );
    check(
        &both,
        Some("https://desk.example/booking/3"),
        r#"{"id":"a"}"#,
        Err(("/dataschema", "no schema of this name")),
    );
    // Where no version has a name, the attribute is the publisher's own affair.
    let nameless = catalog(&[r#"{"x-roomcast-type":"booking:new","type":"object"}"#]);
    check(&nameless, Some("anything"), "{}", Ok(()));
}

#[test]
fn a_type_says_what_happens_to_who_breaks_it() {
    for (mode, expected) in [
        ("off", None),
        ("warn", Some(Mode::Warn)),
        ("enforce", Some(Mode::Enforce)),
    ] {
        let text = V1.replacen("\"$id\"", &format!("\"x-roomcast-mode\":\"{mode}\",\"$id\""), 1);
        let found = catalog(&[&text]).check("booking:new", None, Data::Json("7"));
        assert_eq!(found.err().map(|breach| breach.mode), expected, "{mode}");
    }
}

#[test]
fn schemas_that_clash_are_mistakes() {
    #[track_caller]
    fn clash(other: &str, words: &str) {
        let mistakes = Catalog::new(schemas(&[V1, other])).unwrap_err();
        assert!(mistakes[0].to_string().contains(words), "{mistakes:?}");
        assert!(mistakes[0].to_string().contains("0.json"), "{mistakes:?}");
    }
    clash(r#"{"x-roomcast-type":"booking:new"}"#, "1.json:1:1: ");
    clash(&V2.replace("booking/2", "booking/1"), "the same $id");
    clash(
        &V2.replacen("\"$id\"", "\"x-roomcast-mode\":\"warn\",\"$id\"", 1),
        "warn here, enforce in",
    );
    assert_eq!(catalog(&[V1, V2]).kinds().next().unwrap().1[0].version, 2);
}
