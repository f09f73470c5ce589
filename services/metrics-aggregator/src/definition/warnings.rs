//! Numbers that show some people what redaction hides from them.

use std::sync::Arc;

use roomcast_access::Mistake;
use roomcast_access::yaml::At;

use super::Definition;
use super::read::Reader;
use crate::engine::row::Path;

impl Reader<'_> {
    /// What the policy hides in a metric's events from somebody who may see its numbers. Sums tell less than what they are made of, so
    /// this may be meant.
    pub(super) fn warnings(&self, metrics: &[Arc<Definition>], places: &[At]) -> Vec<Mistake> {
        let Some(policy) = self.policy else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        for (metric, at) in metrics.iter().zip(places) {
            let Some(publish) = &metric.publish else { continue };
            let Some(audience) = policy.audience(publish.audience.as_str()) else {
                continue;
            };
            let mut told: Vec<String> = Vec::new();
            for leg in &metric.legs {
                for path in &leg.paths {
                    let Path::Data(names) = path else { continue };
                    let roles = policy.exposed_to(leg.rooms.as_str(), names, &publish.room, audience);
                    let field = path.to_string();
                    if roles.is_empty() || told.contains(&field) {
                        continue;
                    }
                    warnings.push(Mistake {
                        file: self.file.to_owned(),
                        line: at.line,
                        column: at.column,
                        message: format!(
                            "{:?} is made of {field}, which the policy takes out of {} for {}; they see this number in {}",
                            metric.name,
                            leg.rooms.as_str(),
                            roles.join(", "),
                            publish.room
                        ),
                        suggestion: None,
                    });
                    told.push(field);
                }
            }
        }
        warnings
    }
}
