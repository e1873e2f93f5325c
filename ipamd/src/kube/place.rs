//! The node's ENIConfig as a stream: what the API server says about the object of this name, whenever that changes.

use std::pin::Pin;

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio_stream::{Stream, StreamExt};

use super::{
    connection::told,
    eni_config::{GROUP, KIND, Reading, VERSION},
};

/// The resource.
fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, VERSION, KIND);
    ApiResource::from_gvk_with_plural(&kind, "eniconfigs")
}

/// Reads the ENIConfig of this name once.
///
/// # Errors
/// The API server's, except that the object does not exist.
pub(super) async fn read(client: Client, name: &str) -> Result<Reading, kube::Error> {
    let configs: Api<DynamicObject> = Api::all_with(client, &resource());
    let found = configs.get_opt(name).await?;
    Ok(found.map_or(Reading::Missing, |config| Reading::Found(Box::new(config))))
}

pub(super) type Readings = Pin<Box<dyn Stream<Item = Reading> + Send>>;

/// Reconnects, and never ends. It may repeat itself.
pub(super) fn readings(client: Client, name: &str) -> Readings {
    let configs: Api<DynamicObject> = Api::all_with(client, &resource());
    // From the API server's cache, for the reason given for the Node.
    let own = watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .any_semantic();
    let mut listed = false;
    let stream = watcher(configs, own)
        .default_backoff()
        .filter_map(move |event| reading(event, &mut listed));
    Box::pin(stream)
}

/// `listed`: the list in progress has the object.
fn reading(
    event: Result<Event<DynamicObject>, watcher::Error>,
    listed: &mut bool,
) -> Option<Reading> {
    match event {
        Ok(Event::Init) => {
            *listed = false;
            None
        }
        Ok(Event::InitApply(config) | Event::Apply(config)) => {
            *listed = true;
            Some(Reading::Found(Box::new(config)))
        }
        Ok(Event::InitDone) => (!*listed).then_some(Reading::Missing),
        Ok(Event::Delete(_)) => Some(Reading::Missing),
        // 410 Gone: the library lists again.
        Err(watcher::Error::WatchError(status)) if status.code == 410 => None,
        Err(error) => Some(Reading::Unreadable(told(&error))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> DynamicObject {
        let object = json!({ "apiVersion": "v1", "kind": KIND, "metadata": { "name": "a" } });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_list_without_the_object_means_that_it_does_not_exist() {
        let mut listed = false;
        let mut read = |event| reading(event, &mut listed);
        assert_eq!(read(Ok(Event::Init)), None);
        assert_eq!(read(Ok(Event::InitDone)), Some(Reading::Missing));
        assert_eq!(read(Ok(Event::Init)), None);
        assert!(matches!(
            read(Ok(Event::InitApply(config()))),
            Some(Reading::Found(_))
        ));
        assert_eq!(read(Ok(Event::InitDone)), None);
        assert_eq!(read(Ok(Event::Delete(config()))), Some(Reading::Missing));
    }
}
