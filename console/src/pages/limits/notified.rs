//! Notified: who is told of what fires, in forms and in words.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::path_of;
use crate::visit::{Fields, Visit};

/// Most people that a form offers to tick; more are typed by id.
pub(super) const PEOPLE_MAX: usize = 24;
pub(super) const ALL_ADMINS: &str = "all_admins";

#[derive(Default, Deserialize)]
pub(super) struct Contacts {
    pub(super) admins: Vec<Person>,
    pub(super) users: Vec<Person>,
}

#[derive(Deserialize)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) name: Option<String>,
}

/// Who is notified: everybody, some, or nobody.
pub(super) struct Notified {
    pub(super) to: String,
    pub(super) people: Vec<Ticked>,
    pub(super) others: String,
}

pub(super) struct Ticked {
    pub(super) value: String,
    pub(super) label: String,
    pub(super) is_on: bool,
}

/// Reads who can be notified. Auditors may not, and the forms work without.
pub(super) async fn contacts(visit: &Visit, id: &str) -> Contacts {
    if !visit.who.may_set() {
        return Contacts::default();
    }
    visit.api.get(&format!("{}/contacts", path_of(id))).await.unwrap_or_default()
}

pub(super) fn notified_in_words(recipients: &Value) -> String {
    match ids_of(recipients).as_slice() {
        _ if recipients == ALL_ADMINS => "all admins".to_owned(),
        [] => "nobody".to_owned(),
        ids => ids.join(", "),
    }
}

pub(super) fn ids_of(recipients: &Value) -> Vec<&str> {
    recipients.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Offers those who can be notified, and ticks those who are.
pub(super) fn notified(contacts: &Contacts, recipients: &Value) -> Notified {
    let mut ids: BTreeSet<&str> = ids_of(recipients).into_iter().collect();
    let to = match ids.is_empty() {
        _ if *recipients == ALL_ADMINS => "all",
        true => "nobody",
        false => "some",
    };
    let people = contacts.admins.iter().chain(&contacts.users).take(PEOPLE_MAX);
    let people = people.map(|person| Ticked {
        is_on: ids.remove(person.id.as_str()),
        label: person.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| person.id.clone()),
        value: person.id.clone(),
    });
    let people: Vec<Ticked> = people.collect();
    let others = ids.into_iter().collect::<Vec<_>>().join(", ");
    Notified { to: to.to_owned(), people, others }
}

/// Returns names that are typed behind each other, separated by commas, spaces or lines.
pub(super) fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\n', '\r', '\t']).filter(|name| !name.is_empty())
}

/// Returns who is notified, as the API takes it.
pub(super) fn recipients(form: &Fields) -> Value {
    match form.get("to") {
        "all" => ALL_ADMINS.into(),
        "some" => {
            let ticked = form.all("person").filter(|id| !id.is_empty());
            let mut ids: Vec<&str> = Vec::new();
            for id in ticked.chain(listed(form.get("others"))) {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
            json!(ids)
        }
        _ => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Fields {
        Fields::read(text.as_bytes())
    }

    #[test]
    fn those_who_are_notified_are_all_some_or_nobody() {
        for (typed, expected) in [
            ("to=all&person=ana", json!("all_admins")),
            ("to=some&person=ana&others=bob%2C+ana", json!(["ana", "bob"])),
            ("to=nobody&person=ana", json!([])),
        ] {
            assert_eq!(recipients(&form(typed)), expected, "{typed}");
        }
        let contacts = Contacts { admins: vec![Person { id: "ana".into(), name: None }], users: Vec::new() };
        let shown = notified(&contacts, &json!(["ana", "bob"]));
        assert_eq!((shown.to.as_str(), shown.others.as_str()), ("some", "bob"));
        assert!(shown.people[0].is_on);
        assert_eq!(notified(&contacts, &json!([])).to, "nobody");
        assert_eq!(notified_in_words(&json!(["ana", "bob"])), "ana, bob");
    }
}
