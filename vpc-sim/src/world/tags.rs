//! CreateTags, DeleteTags and the rules for tags.

use std::time::Duration;

use super::{World, model::Tags};
use crate::{
    action::Action,
    error::{ApiError, Resource},
    ids::{EniId, GroupId, InstanceId, RouteTableId, SubnetId, VpcId},
};

const KEY_LENGTH: usize = 128;
const VALUE_LENGTH: usize = 256;

/// Whether a resource can have exactly these `tags`.
pub(super) fn check(tags: &Tags, most: usize, resource: &dyn ToString) -> Result<(), ApiError> {
    for (key, value) in tags {
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::ReservedTag { key: key.clone() });
        }
        if key.is_empty() || key.chars().count() > KEY_LENGTH {
            let why = "Tag keys have 1 to 128 characters.";
            return Err(ApiError::InvalidValue {
                name: "tagKey".into(),
                value: key.clone(),
                why,
            });
        }
        if value.chars().count() > VALUE_LENGTH {
            let why = "Tag values have up to 256 characters.";
            return Err(ApiError::InvalidValue {
                name: "tagValue".into(),
                value: value.clone(),
                why,
            });
        }
    }
    if tags.len() > most {
        Err(ApiError::TagLimit {
            resource: resource.to_string(),
        })
    } else {
        Ok(())
    }
}

impl World {
    /// CreateTags: adds or overwrites `tags` on all resources, or on none.
    ///
    /// # Errors
    /// If a resource is unknown, a tag is malformed, or a resource would have too many.
    pub fn create_tags(
        &mut self,
        resources: &[String],
        tags: &Tags,
        now: Duration,
    ) -> Result<(), ApiError> {
        self.begin(Action::CreateTags, true, now)?;
        self.tag(resources, tags)
    }

    /// The same in the console: not a call, so neither throttled nor counted.
    ///
    /// # Errors
    /// As [`World::create_tags`].
    pub fn tag(&mut self, resources: &[String], tags: &Tags) -> Result<(), ApiError> {
        let most = self.quotas.tags_per_resource;
        for id in resources {
            let mut all = self.tags_mut(id)?.clone();
            all.extend(tags.clone());
            check(&all, most, id)?;
        }
        for id in resources {
            self.tags_mut(id)?.extend(tags.clone());
        }
        Ok(())
    }

    /// DeleteTags: removes each key, or only if it has the given value.
    ///
    /// # Errors
    /// If a resource is unknown.
    pub fn delete_tags(
        &mut self,
        resources: &[String],
        tags: &[(String, Option<String>)],
        now: Duration,
    ) -> Result<(), ApiError> {
        self.begin(Action::DeleteTags, true, now)?;
        for id in resources {
            self.tags_mut(id)?;
        }
        for id in resources {
            let doomed = |k: &str, v: &str| {
                tags.iter()
                    .any(|(key, val)| key == k && val.as_deref().is_none_or(|x| x == v))
            };
            let all = self.tags_mut(id)?;
            if tags.is_empty() {
                all.clear()
            } else {
                all.retain(|k, v| !doomed(k, v))
            }
        }
        Ok(())
    }

    fn tags_mut(&mut self, id: &str) -> Result<&mut Tags, ApiError> {
        let (kind, found) = match id.split_once('-').map(|(kind, _)| kind) {
            Some("eni") => (
                Resource::Interface,
                self.interfaces
                    .get_mut(&EniId::from(id))
                    .map(|e| &mut e.tags),
            ),
            Some("subnet") => (
                Resource::Subnet,
                self.places
                    .get_mut(&SubnetId::from(id))
                    .map(|p| &mut p.subnet.tags),
            ),
            Some("vpc") => (
                Resource::Vpc,
                self.vpcs.get_mut(&VpcId::from(id)).map(|v| &mut v.tags),
            ),
            Some("rtb") => (
                Resource::RouteTable,
                self.route_tables
                    .get_mut(&RouteTableId::from(id))
                    .map(|t| &mut t.tags),
            ),
            Some("sg") => (
                Resource::Group,
                self.groups.get_mut(&GroupId::from(id)).map(|g| &mut g.tags),
            ),
            Some("i") => (
                Resource::Instance,
                self.instances
                    .get_mut(&InstanceId::from(id))
                    .map(|i| &mut i.tags),
            ),
            _ => (Resource::Other, None),
        };
        found.ok_or_else(|| ApiError::not_found(kind, &id))
    }
}
