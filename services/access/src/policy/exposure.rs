//! Who would see a number that is made of a field which is taken out of events for them.

use roomcast_proto::ids::Room;

use super::Policy;
use crate::audience::AudienceId;

impl Policy {
    /// Roles whose holders are in `audience` of `room` and may enter it, but to whom `field` of events in `source` is not shown, because
    /// they lack the permission that its redaction asks for. `source` is a room in which `*` stands for any token; `field` the names
    /// below `data`. Each role once, in the order of the policy.
    #[must_use]
    pub fn exposed_to(&self, source: &str, field: &[String], room: &Room, audience: AudienceId) -> Vec<&str> {
        let source: Vec<&str> = source.split('.').collect();
        let entries = self.compiled.entries.iter();
        let rules = entries
            .filter(|entry| overlap(&entry.pattern.tokens(), &source))
            .flat_map(|entry| &entry.rules)
            .filter_map(|rule| self.compiled.rules.get(*rule));
        let hidden = rules.filter(|rule| rule.remove.iter().any(|pointer| pointer.touches(field)));
        let hidden: Vec<_> = hidden.map(|rule| rule.unless).collect();
        let target: Vec<&str> = room.as_str().split('.').collect();
        let doors = self.compiled.entries.iter();
        let doors: Vec<_> = doors
            .filter(|entry| overlap(&entry.pattern.tokens(), &target))
            .filter_map(|entry| entry.subscribe)
            .collect();
        let roles = self.compiled.roles.iter().zip(self.compiled.role_names());
        roles
            .filter(|(role, _)| audience == AudienceId::ALL || role.audiences.contains(audience))
            .filter(|(role, _)| doors.iter().any(|door| role.permissions.holds(*door)))
            .filter(|(role, _)| hidden.iter().any(|unless| !role.permissions.holds(*unless)))
            .map(|(_, name)| name)
            .collect()
    }
}

/// Whether a pattern of the policy and a room with `*` can mean one room.
fn overlap(pattern: &[Option<&str>], room: &[&str]) -> bool {
    let fits =
        |(token, have): (&Option<&str>, &&str)| token.is_none_or(|token| token == *have || *have == "*");
    pattern.len() == room.len() && pattern.iter().zip(room).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_made_of_a_hidden_field_is_exposed_to_whom_it_is_hidden_from() {
        let text = "version: 1
roles:
  user: { permissions: [news.view] }
  staff: { inherits: [user], permissions: [desk.view] }
  clerk: { inherits: [staff], permissions: [money.view] }
  boss: { inherits: [clerk], permissions: ['*'] }
rooms:
  - { room: 'property.{ids}', subscribe: desk.view, redact: [{ unless: money.view, remove: [/amount, /customer/email] }] }
  - { room: board, subscribe: desk.view }
  - { room: news, subscribe: news.view }
";
        let policy = Policy::parse(text, "policy.yaml").unwrap();
        let check = |source: &str, field: &str, room: &str, audience: &str, expected: &[&str]| {
            let field: Vec<String> = field.split('.').map(str::to_owned).collect();
            let room = Room::parse(room).unwrap();
            let audience = policy.audience(audience).unwrap();
            let found = policy.exposed_to(source, &field, &room, audience);
            assert_eq!(found, expected, "{source} {field:?} {room}");
        };
        check("property.*", "amount", "board", "all", &["staff"]);
        check("property.7", "amount", "board", "staff", &["staff"]);
        check("property.7", "amount", "news", "all", &["user", "staff"]);
        check("*.*", "customer", "board", "all", &["staff"]);
        check("property.*", "customer.email.host", "board", "all", &["staff"]);
        check("property.*", "amount", "board", "clerk", &[]);
        check("property.*", "category", "board", "all", &[]);
        check("property.*", "customer.name", "board", "all", &[]);
        check("property", "amount", "board", "all", &[]);
        check("board", "amount", "news", "all", &[]);
    }
}
