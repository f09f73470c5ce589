//! Roles and permissions: what is inherited, what is granted, and what nobody could ever have.

use std::collections::{HashMap, HashSet};

use super::compiled::{Compiled, PermissionId, PermissionSet, Role};
use super::draft::{Draft, Name, RoleDraft};
use crate::audience::{AUDIENCES_MAX, AudienceSet};
use crate::yaml::{At, Mistakes, distance, nearest};

/// Most permissions with a name in one policy: a set of them is 128 bytes.
const PERMISSIONS_MAX: usize = 1_024;

/// The names of permissions. What rooms and commands ask for must be granted by some role, or nobody could ever do it.
pub(super) struct Permissions {
    pub(super) ids: HashMap<String, PermissionId>,
    granted: HashSet<String>,
    everything: bool,
}

impl Permissions {
    pub(super) fn granted_by(roles: &[RoleDraft], mistakes: &mut Mistakes<'_>) -> Self {
        let mut this = Self {
            ids: HashMap::new(),
            granted: HashSet::new(),
            everything: false,
        };
        for permission in roles.iter().flat_map(|role| &role.permissions) {
            if permission.text == "*" {
                this.everything = true;
            } else if this.id(permission, mistakes).is_some() {
                this.granted.insert(permission.text.clone());
            }
        }
        this
    }

    fn id(&mut self, name: &Name, mistakes: &mut Mistakes<'_>) -> Option<PermissionId> {
        if let Some(id) = self.ids.get(&name.text) {
            return Some(*id);
        }
        if self.ids.len() == PERMISSIONS_MAX {
            mistakes.add(name.at, format!("more than {PERMISSIONS_MAX} permissions"));
            return None;
        }
        let id = PermissionId(self.ids.len());
        self.ids.insert(name.text.clone(), id);
        Some(id)
    }

    /// A permission that something asks for. Where a role has `"*"`, a permission that only this role has needs no other
    /// mention; but one that differs from a granted one by a letter or two is a slip of the pen all the same.
    pub(super) fn asked_for(
        &mut self,
        name: Option<&Name>,
        mistakes: &mut Mistakes<'_>,
    ) -> Option<PermissionId> {
        let name = name?;
        if !self.granted.contains(&name.text) {
            let granted = || self.granted.iter().map(String::as_str);
            let slip = nearest(&name.text, granted()).is_some_and(|near| distance(near, &name.text) <= 2);
            if !self.everything {
                let message = format!("no role grants the permission {:?}", name.text);
                mistakes.unknown(name.at, message, &name.text, granted());
            } else if slip {
                let message = format!(
                    "no role but one with \"*\" grants the permission {:?} (if it is meant, name it beside \"*\")",
                    name.text
                );
                mistakes.unknown(name.at, message, &name.text, granted());
            }
        }
        self.id(name, mistakes)
    }
}

/// Fills in roles and aliases.
pub(super) fn compile_roles(
    compiled: &mut Compiled,
    draft: &Draft,
    permissions: &Permissions,
    before: Option<&Compiled>,
    mistakes: &mut Mistakes<'_>,
) {
    compiled.role_names = draft.roles.iter().map(|role| role.name.text.clone()).collect();
    compiled.role_index = compiled
        .role_names
        .iter()
        .enumerate()
        .map(|(index, name)| (name.clone(), index))
        .collect();
    if !compiled.number(before) {
        let most = AUDIENCES_MAX - 1;
        mistakes.add(
            At::default(),
            format!("more than {most} different role names since this process started; restart it to take this policy"),
        );
        return;
    }
    let parents: Vec<Vec<usize>> = draft
        .roles
        .iter()
        .map(|role| resolve_roles(compiled, &role.inherits, "`inherits` names", mistakes))
        .collect();
    report_cycles(&draft.roles, &parents, mistakes);
    compiled.roles = (0..draft.roles.len())
        .map(|start| {
            let mut role = Role {
                permissions: PermissionSet::default(),
                audiences: AudienceSet::EVERYBODY,
            };
            for index in reachable(start, &parents) {
                role.audiences = role.audiences.with(compiled.role_audiences[index]);
                for permission in &draft.roles[index].permissions {
                    role.permissions.everything |= permission.text == "*";
                    if let Some(id) = permissions.ids.get(&permission.text) {
                        role.permissions.insert(*id);
                    }
                }
            }
            role
        })
        .collect();
    for (alias, role) in &draft.aliases {
        if compiled.role_names.contains(&alias.text) {
            mistakes.add(
                alias.at,
                format!("{:?} is a role already and cannot be an alias", alias.text),
            );
        } else if alias.text.is_empty() || alias.text.len() > crate::token::ROLE_BYTES_MAX {
            mistakes.add(alias.at, "an alias has 1 to 128 bytes");
        }
        match resolve_roles(
            compiled,
            std::slice::from_ref(role),
            "`role_aliases` names",
            mistakes,
        )
        .first()
        {
            Some(index) => drop(compiled.role_index.insert(alias.text.clone(), *index)),
            None => continue,
        }
    }
}

/// The places of named roles; names of no role become mistakes. Aliases do not count: inside the policy a role has one name.
pub(super) fn resolve_roles(
    compiled: &Compiled,
    names: &[Name],
    who: &str,
    mistakes: &mut Mistakes<'_>,
) -> Vec<usize> {
    let known = || compiled.role_names.iter().map(String::as_str);
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        match compiled.role_names.iter().position(|role| *role == name.text) {
            Some(index) => found.push(index),
            None => {
                let message = format!("{who} the role {:?}, which is not defined", name.text);
                mistakes.unknown(name.at, message, &name.text, known());
            }
        }
    }
    found
}

/// A role and everything it inherits. Ends also on cycles.
fn reachable(start: usize, parents: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![start];
    let mut next = 0;
    while let Some(index) = seen.get(next).copied() {
        next += 1;
        for parent in &parents[index] {
            if !seen.contains(parent) {
                seen.push(*parent);
            }
        }
    }
    seen
}

/// One mistake per cycle, at the first of its roles in the file.
fn report_cycles(roles: &[RoleDraft], parents: &[Vec<usize>], mistakes: &mut Mistakes<'_>) {
    let mut told = HashSet::new();
    for start in 0..roles.len() {
        if told.contains(&start) {
            continue;
        }
        if let Some(way) = way_back(start, parents) {
            let names: Vec<&str> = way
                .iter()
                .chain([&start])
                .map(|index| &*roles[*index].name.text)
                .collect();
            mistakes.add(
                roles[start].name.at,
                format!("roles inherit each other in a circle: {}", names.join(" → ")),
            );
            told.extend(way);
        }
    }
}

/// The shortest way from a role back to itself, without its end.
fn way_back(start: usize, parents: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut ways = vec![vec![start]];
    let mut seen = HashSet::new();
    let mut next = 0;
    while let Some(way) = ways.get(next).cloned() {
        next += 1;
        for parent in &parents[*way.last()?] {
            if *parent == start {
                return Some(way);
            }
            if seen.insert(*parent) {
                ways.push(way.iter().copied().chain([*parent]).collect());
            }
        }
    }
    None
}
