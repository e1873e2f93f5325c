//! Changes of the Node by clients: merge patches of the object, and of its status, in which conditions are merged by type.

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{Shared, World, missing};

/// A patch of the object, which fails if it names another version than the current one.
pub(super) async fn object(
    State(world): State<Shared>,
    Path(name): Path<String>,
    body: String,
) -> Response {
    apply(&world, &name, &body, |node, patch| {
        merge(&mut node["spec"], &patch["spec"]);
    })
}

/// A patch of the subresource `status`, which changes nothing else.
pub(super) async fn status(
    State(world): State<Shared>,
    Path(name): Path<String>,
    body: String,
) -> Response {
    apply(&world, &name, &body, |node, patch| {
        let new = patch["status"]["conditions"].as_array();
        if !node["status"]["conditions"].is_array() {
            node["status"]["conditions"] = json!([]);
        }
        let Some(conditions) = node["status"]["conditions"].as_array_mut() else {
            return;
        };
        for condition in new.into_iter().flatten() {
            conditions.retain(|old| old["type"] != condition["type"]);
            conditions.push(condition.clone());
        }
    })
}

fn apply(
    world: &Shared,
    name: &str,
    body: &str,
    change: impl FnOnce(&mut Value, &Value),
) -> Response {
    let Ok(patch) = serde_json::from_str::<Value>(body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let mut answer = missing();
    world.send_modify(|world| {
        if world.node["metadata"]["name"] == json!(name) {
            answer = world.patched(patch, change);
        }
    });
    answer
}

impl World {
    fn patched(&mut self, patch: Value, change: impl FnOnce(&mut Value, &Value)) -> Response {
        let seen = &patch["metadata"]["resourceVersion"];
        if !seen.is_null() && *seen != json!(self.version.to_string()) {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict",
                                 "code": 409, "message": "the object has been modified" });
            return (StatusCode::CONFLICT, status.to_string()).into_response();
        }
        change(&mut self.node, &patch);
        self.version += 1;
        self.patches.push(patch);
        self.numbered().to_string().into_response()
    }
}

/// As RFC 7396 says.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut target[key], value);
        }
    }
}
