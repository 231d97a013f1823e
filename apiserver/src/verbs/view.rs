//! Objects in the form that a client asked for: plain, table or metadata only.
//!
//! The plain form is bytes that were encoded once; only the other two decode.

use std::sync::Arc;

use api::status::Status;
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::kv::Revision;

use crate::body::Body;
use crate::error::Outcome;
use crate::negotiate::{self, Form};
use crate::registry::resource::Resource;
use crate::response;
use crate::storage::decode;
use crate::storage::object::Stored;
use crate::table::{Column, IncludeObject, partial_object, to_table};
use crate::verbs::{Call, present};

/// How objects are to be shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Plain, table or metadata.
    pub form: Form,
    /// What of an object goes into a table's row.
    pub include: IncludeObject,
}

/// The metadata of a list.
#[derive(Debug, Default)]
pub struct ListMeta {
    /// The revision that the list shows.
    pub revision: Revision,
    /// Where to go on.
    pub continue_token: Option<String>,
    /// How many objects come after this page, if that is known.
    pub remaining: Option<u64>,
}

impl ListMeta {
    fn to_json(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if let Some(token) = &self.continue_token {
            meta["continue"] = json!(token);
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }
}

impl View {
    /// What the request's Accept header and `includeObject` ask for.
    ///
    /// # Errors
    /// 406 if nothing offered is accepted, 400 if `includeObject` is unknown.
    pub fn of(call: &Call<'_>) -> Result<Self, Status> {
        let form = negotiate::form(call.headers)?;
        let include = IncludeObject::parse(call.info.query.get("includeObject"))
            .ok_or_else(|| Status::bad_request("unrecognized includeObject value"))?;
        Ok(Self { form, include })
    }

    /// One object.
    pub async fn object(&self, call: &Call<'_>, code: StatusCode, stored: Stored) -> Outcome<Response<Body>> {
        let stored = self.seen(call.resource, Arc::new(stored)).await?;
        if self.form == Form::Plain {
            return Ok(response::json_bytes(code, stored.to_bytes()));
        }
        let value = self.transform(call.resource, &decode(&stored)?, true);
        Ok(response::json(code, &value))
    }

    /// A stored object as this view shows it.
    pub async fn seen(&self, resource: &Resource, stored: Arc<Stored>) -> Outcome<Arc<Stored>> {
        if self.shows_stored(resource) { Ok(stored) } else { present::one(resource, stored).await }
    }

    /// Cells are made of an object as it is stored, whatever the version that was asked for.
    fn shows_stored(&self, resource: &Resource) -> bool {
        self.form == Form::Table && resource.stored_as.is_some()
    }

    /// One object as a table or as metadata; `headers` says whether a table gets its column definitions.
    pub fn transform(&self, resource: &Resource, object: &Value, headers: bool) -> Value {
        self.in_columns(&resource.columns, object, headers)
    }

    /// The same of an object with columns of its own, as a subresource's.
    pub fn in_columns(&self, columns: &[Column], object: &Value, headers: bool) -> Value {
        match self.form {
            Form::Plain => object.clone(),
            Form::Metadata => partial_object(object),
            Form::Table => {
                let meta = json!({"resourceVersion": api::object::resource_version(object)});
                to_table(columns, [object], self.include, meta, headers, Timestamp::now())
            }
        }
    }

    /// A list.
    pub async fn list(
        &self,
        call: &Call<'_>,
        items: Vec<Arc<Stored>>,
        meta: &ListMeta,
    ) -> Outcome<Response<Body>> {
        let items = &match self.shows_stored(call.resource) {
            true => items,
            false => present::all(call.resource, items).await?,
        }[..];
        let bytes = match self.form {
            Form::Plain => plain_list(call, items, meta),
            Form::Metadata => metadata_list(items, meta)?,
            Form::Table => {
                let values = items.iter().map(|stored| decode(stored)).collect::<Outcome<Vec<_>>>()?;
                let now = Timestamp::now();
                let columns = &call.resource.columns;
                to_table(columns, &values, self.include, meta.to_json(), true, now).to_string().into()
            }
        };
        Ok(response::json_bytes(StatusCode::OK, bytes))
    }

    /// The object of a bookmark: nothing but the revision.
    pub fn bookmark(&self, resource: &Resource, revision: Revision, initial_end: bool) -> Value {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (version, kind) = match self.form {
            Form::Plain => (resource.api_version(), resource.kind.as_str()),
            Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
            Form::Table => return self.table_bookmark(resource, meta),
        };
        json!({"kind": kind, "apiVersion": version, "metadata": meta})
    }

    fn table_bookmark(&self, resource: &Resource, meta: Value) -> Value {
        to_table(&resource.columns, [], self.include, meta, false, Timestamp::now())
    }
}

fn plain_list(call: &Call<'_>, items: &[Arc<Stored>], meta: &ListMeta) -> Bytes {
    let size: usize = items.iter().map(|stored| stored.json.len() + 48).sum();
    let mut out = Vec::with_capacity(size + 256);
    let (kind, version) = (&call.resource.list_kind, call.resource.api_version());
    let head =
        format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{},"items":["#, meta.to_json());
    out.extend_from_slice(head.as_bytes());
    for (index, stored) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        stored.write_to(&mut out);
    }
    out.extend_from_slice(b"]}\n");
    out.into()
}

fn metadata_list(items: &[Arc<Stored>], meta: &ListMeta) -> Outcome<Bytes> {
    let items =
        items.iter().map(|stored| Ok(partial_object(&decode(stored)?))).collect::<Outcome<Vec<_>>>()?;
    let list = json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta.to_json(),
        "items": items,
    });
    Ok(list.to_string().into())
}
