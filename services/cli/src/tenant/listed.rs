//! The publishers of a policy as text: an entry put in, doubled or taken out, and everything else left as somebody wrote it. Pure.

use roomcast_proto::ids::Tenant;

/// An entry of the list: `- { nats: acme/U…, roles: [desk] }`.
pub(super) fn entry(tenant: &Tenant, login: &str, roles: &[String]) -> String {
    format!("  - {{ nats: {tenant}/{login}, roles: [{}] }}", roles.join(", "))
}

/// The policy with one more entry.
///
/// # Errors
/// What to do instead, where the list is not written an entry a line.
pub(super) fn with(policy: &str, entry: &str) -> Result<String, String> {
    let mut lines: Vec<&str> = policy.lines().collect();
    let list = lines.iter().position(|line| line.starts_with("publishers:"));
    let Some(list) = list else {
        return Ok(format!("{}\npublishers:\n{entry}\n", policy.trim_end()));
    };
    let rest = lines[list].trim_start_matches("publishers:").trim();
    if !(rest.is_empty() || rest.starts_with('#')) {
        let entry = entry.trim_start();
        return Err(format!(
            "`publishers` stands in one line; write one entry a line below it, and among them: {entry}"
        ));
    }
    lines.insert(list + 1, entry);
    Ok(lines.join("\n") + "\n")
}

/// The policy with a second login beside one that it lists in a line; the same where no line is its entry.
pub(super) fn beside(policy: &str, tenant: &Tenant, login: &str, second: &str) -> String {
    let mut lines = Vec::new();
    for line in policy.lines() {
        lines.push(line.to_owned());
        if names(line, tenant, login) {
            lines.push(line.replacen(&format!("{tenant}/{login}"), &format!("{tenant}/{second}"), 1));
        }
    }
    lines.join("\n") + "\n"
}

/// The policy without the entries of these logins that are lines.
pub(super) fn without(policy: &str, tenant: &Tenant, logins: &[String]) -> String {
    let kept = policy
        .lines()
        .filter(|line| !logins.iter().any(|login| names(line, tenant, login)));
    let kept: Vec<&str> = kept.collect();
    // A list without entries would be nothing where a list is expected.
    let empty = |at: usize| {
        kept.get(at + 1)
            .is_none_or(|next| !next.trim_start().starts_with(['-', '#']))
    };
    let lines = kept
        .iter()
        .enumerate()
        .filter(|(at, line)| line.trim() != "publishers:" || !empty(*at));
    let lines: Vec<&str> = lines.map(|(_, line)| *line).collect();
    lines.join("\n") + "\n"
}

/// Whether a line is the entry of a login, the whole of it.
fn names(line: &str, tenant: &Tenant, login: &str) -> bool {
    let entry = line.trim_start().strip_prefix('-').map(str::trim_start);
    let Some(members) = entry.and_then(|entry| entry.strip_prefix('{')) else {
        return false;
    };
    let Some((_, after)) = members.split_once("nats:") else {
        return false;
    };
    let value = after.trim_start().trim_start_matches(['"', '\'']);
    value
        .strip_prefix(&format!("{tenant}/{login}"))
        .is_some_and(|after| after.starts_with([',', ' ', '}', '"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Tenant {
        Tenant::parse("acme").unwrap()
    }

    #[test]
    fn entries_come_and_go_and_the_rest_stays() {
        let before = "version: 1 # as it was\npublishers: # who\n  - { nats: main/erp, roles: [desk] }\n";
        let entry = entry(&acme(), "UOLD", &["desk".to_owned(), "staff".to_owned()]);
        let added = with(before, &entry).unwrap();
        assert!(
            added.contains("# who\n  - { nats: acme/UOLD, roles: [desk, staff] }\n  - { nats: main/erp"),
            "{added}"
        );
        let both = beside(&added, &acme(), "UOLD", "UNEW");
        assert_eq!(both.matches("roles: [desk, staff]").count(), 2, "{both}");
        let one = without(&both, &acme(), &["UOLD".to_owned()]);
        assert!(one.contains("acme/UNEW") && !one.contains("UOLD"), "{one}");
        assert_eq!(without(&one, &acme(), &["UNEW".to_owned()]), before);
        // Another tenant's user of the same name, and one whose name only begins so.
        assert_eq!(without(before, &acme(), &["erp".to_owned()]), before);
        let longer = before.replace("main/erp", "acme/UOLDER");
        assert_eq!(without(&longer, &acme(), &["UOLD".to_owned()]), longer);
        assert_eq!(beside(before, &acme(), "UOLD", "UNEW"), before);
        // An entry of several lines is none that could be doubled or taken out by one.
        for block in [
            "publishers:\n  - nats: acme/UOLD # the shop\n    roles: [desk]\n",
            "publishers:\n  - nats: acme/UOLD\n    roles: [desk]\n",
        ] {
            assert_eq!(beside(block, &acme(), "UOLD", "UNEW"), block);
            assert_eq!(without(block, &acme(), &["UOLD".to_owned()]), block);
        }
    }

    #[test]
    fn a_policy_without_a_list_gets_one_and_one_in_a_line_is_left_alone() {
        let bare = "version: 1\n";
        let added = with(bare, &entry(&acme(), "U1", &["desk".to_owned()])).unwrap();
        assert_eq!(
            added,
            "version: 1\npublishers:\n  - { nats: acme/U1, roles: [desk] }\n"
        );
        assert_eq!(without(&added, &acme(), &["U1".to_owned()]), bare);
        let error = with("publishers: [{ nats: main/erp, roles: [desk] }]\n", "  - x").unwrap_err();
        assert!(error.contains("and among them: - x"), "{error}");
    }
}
