//! Any message by its name, on a connection.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::calls::{Expected, Part};
use super::events::{EventError, Queue};
use super::gathered::Gathered;
use super::shared::{Outgoing, Shared};
use super::{Client, accepted, in_time};
use crate::definition::{DefinitionError, Definitions, Head, Message};
use crate::dynamic::memory_of_text;
use crate::error::Error;
use crate::message::Message as _;
use crate::messages::{ControlPing, ControlPingReply, GetApiJson};
use crate::retval::Retval;
use crate::wire::{DecodeError, DecodeProblem, Input};

/// What came back for a message that was called by name.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// What a dump or a `_get` found.
    pub details: Vec<Json>,
    /// The reply; a dump has none.
    pub reply: Option<Json>,
}

impl Client {
    /// The definitions of the running VPP itself. VPP tells them from version 24.06 on.
    ///
    /// # Errors
    /// VPP does not tell them, or not in a form that can be read, or they would take more than [`super::Limits::gathered`].
    pub async fn definitions(&self) -> Result<Definitions, Error> {
        let reply = self.call(&GetApiJson).await?;
        let most = self.shared().limits.gathered;
        if memory_of_text(&reply.json) > most {
            return Err(Error::TooLarge { message: GetApiJson::NAME.into(), most });
        }
        let unfit = |error: DefinitionError| Error::NoRequest(format!("VPP's own definitions: {error}"));
        let mut told = Definitions::from_json(&reply.json).map_err(unfit)?;
        // Of the messages of its memory and socket layer VPP tells none; these two are of use to others than clients.
        told.take_missing(&Definitions::ours(), &[ControlPing::NAME, GetApiJson::NAME]);
        Ok(told)
    }

    /// Sends the message of that name and waits for all that comes back: details, parts of a `_get` until VPP has told all, the reply.
    ///
    /// ```
    /// use serde_json::json;
    /// use vpp_api_client::definition::Definitions;
    /// # use vpp_api_client::fake::{Deed, Fake, Nature};
    /// # use vpp_api_client::messages::SwInterfaceSetFlagsReply;
    /// use vpp_api_client::{Client, Options};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("api.sock");
    /// # let fake = Fake::start(&path, Nature::default(), |asked| match asked.name.as_str() {
    /// #     "sw_interface_set_flags" => vec![Deed::answer(asked, &SwInterfaceSetFlagsReply::default())],
    /// #     _ => Vec::new(),
    /// # })?;
    /// let vpp = Client::connect(&path, Options::new("by name")).await?;
    /// // `vpp.definitions().await?` has all that this VPP has.
    /// let definitions = Definitions::ours();
    /// let fields = json!({ "sw_if_index": 1, "flags": ["IF_STATUS_API_FLAG_ADMIN_UP"] });
    /// let answer = vpp.call_by_name(&definitions, "sw_interface_set_flags", &fields).await?;
    /// assert_eq!(answer.reply, Some(json!({ "retval": 0 })));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::call`]; and the definitions have no such request.
    pub async fn call_by_name(&self, definitions: &Definitions, name: &str, fields: &Json) -> Result<Answer, Error> {
        let deadline = in_time(self.timeout);
        let mut fields = fields.clone();
        let mut details = self.gathered(name);
        loop {
            let once = self.once(definitions, name, &fields, &mut details);
            let reply = self.until(deadline, name, once).await?;
            let retval = reply.as_ref().map_or(Retval::Ok, retval_of);
            let cursor = reply.as_ref().and_then(|reply| reply.get("cursor")).cloned();
            match (retval, cursor) {
                (Retval::Eagain, Some(cursor)) => match &mut fields {
                    Json::Object(fields) => drop(fields.insert("cursor".into(), cursor)),
                    other => *other = Json::Object(Map::from_iter([("cursor".into(), cursor)])),
                },
                (retval, _) => return accepted(name, retval).map(|()| Answer { details: details.all(), reply }),
            }
        }
    }

    async fn once(
        &self,
        definitions: &Definitions,
        name: &str,
        fields: &Json,
        details: &mut Gathered<'_, Json>,
    ) -> Result<Option<Json>, Error> {
        let shared = self.shared();
        let request = defined(definitions, name)?;
        let service = definitions.services.get(name);
        let service =
            service.ok_or_else(|| Error::NoRequest(format!("{name} is no request, but an answer or event")))?;
        if request.head.context_at().is_none() {
            return Err(Error::NoRequest(format!("{name} has no context, by which its answer would be found")));
        }
        let body = definitions.encode(request, fields);
        let body = body.map_err(|reason| Error::NotSent { message: name.into(), reason })?;
        let mut outgoing = vec![outgoing(shared, request, &body)?];

        let Some(of_details) = &service.details else {
            let reply = service.reply.as_ref();
            let reply = reply.ok_or_else(|| Error::NoRequest(format!("{name} has no answer: it cannot be called")))?;
            let reply = defined(definitions, reply)?;
            let expected = Expected::reply(shared, name, answer_of(shared, reply)?);
            let waiting = shared.call(outgoing.remove(0), expected)?;
            return Ok(Some(decode_next(definitions, reply, &waiting.answer().await?, details)?.0));
        };
        let of_details = defined(definitions, of_details)?;
        let end = if let Some(reply) = &service.reply {
            answer_of(shared, defined(definitions, reply)?)?
        } else {
            outgoing.push(self.outgoing(&ControlPing)?);
            super::answer_of::<ControlPingReply>(shared)?
        };
        let expected = Expected::reply(shared, name, end).with_details(answer_of(shared, of_details)?);
        let mut waiting = shared.stream(outgoing, expected)?;
        loop {
            match waiting.part().await? {
                Part::Details(bytes) => {
                    let (value, memory) = decode_next(definitions, of_details, &bytes, details)?;
                    details.add(value, memory)?;
                }
                Part::End(bytes) => {
                    let Some(reply) = &service.reply else { return Ok(None) };
                    let reply = defined(definitions, reply)?;
                    return Ok(Some(decode_next(definitions, reply, &bytes, details)?.0));
                }
            }
        }
    }

    /// Hears events by name. That they come, a request has to ask for (`want_…_events`).
    ///
    /// # Errors
    /// There is no such event, or VPP has another one of that name.
    pub fn events_by_name(&self, definitions: &Arc<Definitions>, name: &str) -> Result<JsonEvents, Error> {
        let event = defined(definitions, name)?;
        let queue = self.shared().listen(self.shared().id(&event.name, event.crc)?);
        Ok(JsonEvents { queue, definitions: Arc::clone(definitions), name: name.into(), client: self.clone() })
    }
}

/// Events of one kind, as JSON.
#[derive(Debug)]
pub struct JsonEvents {
    queue: Arc<Queue>,
    definitions: Arc<Definitions>,
    name: String,
    client: Client,
}

impl JsonEvents {
    /// The next one, whenever it comes.
    ///
    /// # Errors
    /// As [`super::Events::next`].
    pub async fn next(&mut self) -> Result<Json, EventError> {
        let bytes = self.queue.next().await?;
        let event = defined(&self.definitions, &self.name).map_err(EventError::Unreadable)?;
        let most = self.client.shared().limits.gathered;
        let read = decode(&self.definitions, event, &bytes, most);
        read.map(|(event, _)| event).map_err(EventError::Unreadable)
    }
}

fn retval_of(reply: &Json) -> Retval {
    let number = reply.get("retval").and_then(Json::as_i64).unwrap_or(0);
    i32::try_from(number).map_or(Retval::Other(i32::MIN), Retval::from)
}

fn outgoing(shared: &Shared, message: &Message, body: &[u8]) -> Result<Outgoing, Error> {
    let mut outgoing = Outgoing::new(&message.name, shared.id(&message.name, message.crc)?, message.head);
    outgoing.bytes.extend_from_slice(body);
    Ok(outgoing)
}

/// What answers, and where it has its context.
fn answer_of(shared: &Shared, answer: &Message) -> Result<(u16, Head), Error> {
    if answer.head.context_at().is_none() {
        let name = &answer.name;
        return Err(Error::NoRequest(format!("{name} does not say which request it answers: it cannot be waited for")));
    }
    Ok((shared.id(&answer.name, answer.crc)?, answer.head))
}

/// The fields, and about how much memory they take: up to `most`.
fn decode(definitions: &Definitions, message: &Message, bytes: &[u8], most: usize) -> Result<(Json, usize), Error> {
    let unreadable = |reason: DecodeError| match reason.problem() {
        DecodeProblem::Large { .. } => Error::TooLarge { message: message.name.clone(), most },
        _ => Error::Unreadable { message: message.name.clone(), reason },
    };
    let body = Input::new(bytes).bytes(message.head.bytes()).map(|head| &bytes[head.len()..]);
    let body = body.map_err(|error| unreadable(error.inside("head")))?;
    definitions.decode_within(message, body, most).map_err(unreadable)
}

/// One more answer of a call, with the limit of them all.
fn decode_next<T>(
    definitions: &Definitions,
    message: &Message,
    bytes: &[u8],
    before: &Gathered<'_, T>,
) -> Result<(Json, usize), Error> {
    decode(definitions, message, bytes, before.left()).map_err(|error| match error {
        Error::TooLarge { .. } => before.too_large(),
        other => other,
    })
}

fn defined<'a>(definitions: &'a Definitions, name: &str) -> Result<&'a Message, Error> {
    definitions.messages.get(name).ok_or_else(|| {
        let similar: Vec<&str> = definitions
            .services
            .keys()
            .filter(|known| known.contains(name) || name.contains(known.as_str()) || shares_words(known, name))
            .map(String::as_str)
            .take(5)
            .collect();
        let hint = if similar.is_empty() { String::new() } else { format!("; there are {}", similar.join(", ")) };
        Error::NoRequest(format!("{name}: the definitions have no such message{hint}"))
    })
}

/// Two words in common, so that a mistyped name finds what was meant.
fn shares_words(known: &str, name: &str) -> bool {
    known.split('_').filter(|word| word.len() > 2 && name.split('_').any(|of| of == *word)).count() >= 2
}
