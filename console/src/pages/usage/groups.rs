//! Groups: what the API answers for the page.

use std::collections::BTreeMap;

use futures::future::{join_all, try_join_all};
use ledger_core::value::time::Day;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::asked::{Asked, ROWS_MAX};
use crate::api::{Client, Failure, List};
use crate::format::Sum;
use crate::visit::Fields;

/// Groups with a colour of their own; the rest shares the last.
pub(super) const COLOURS: [&str; 6] = ["c1", "c2", "c3", "c4", "c5", "c6"];
/// Pages of days that a chart reads: four years.
pub(super) const DAY_PAGES_MAX: usize = 3;

#[derive(Debug, Deserialize)]
pub(super) struct Group {
    pub(super) credits: Sum,
    pub(super) events: u64,
    #[serde(default)]
    pub(super) quantities: BTreeMap<String, Sum>,
    /// The values of its dimensions.
    #[serde(flatten)]
    pub(super) values: Map<String, Value>,
}

impl Default for Group {
    fn default() -> Group {
        Group { credits: Sum::ZERO, events: 0, quantities: BTreeMap::new(), values: Map::new() }
    }
}

impl Group {
    /// Returns its value of a dimension, empty where it has none.
    pub(super) fn value(&self, dimension: &str) -> &str {
        self.values.get(dimension).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn is_within(&self, dimensions: &[String], values: &[String]) -> bool {
        dimensions.iter().zip(values).all(|(dimension, value)| self.value(dimension) == value)
    }
}

/// What the API answers for the page.
pub(super) struct Found {
    pub(super) total: Group,
    /// The groups by the first dimension, by the first two, and so on; each level the largest first.
    pub(super) levels: Vec<Vec<Group>>,
    pub(super) by_day: Result<ByDay, Failure>,
}

pub(super) async fn read(api: &Client, path: &str, asked: &Asked) -> Result<Found, Failure> {
    let limit = if asked.by.len() == 1 { asked.rows() } else { ROWS_MAX };
    let deepest = format!("{path}{}", asked.groups(&asked.by, limit));
    // Groups of many users a day would fill any answer.
    let first = asked.by.first().filter(|first| *first != "day" && *first != "user");
    let (deepest, by_day) = tokio::join!(api.get::<List<Group>>(&deepest), days_of(api, path, asked, first));
    let deepest = deepest?.items;
    let is_complete = asked.by.is_empty() || deepest.len() < limit;
    let (total, levels) = if is_complete {
        let levels = (1..asked.by.len()).map(|depth| summed(&deepest, &asked.by[..depth]));
        let mut levels: Vec<Vec<Group>> = levels.collect();
        let total = summed(&deepest, &[]).into_iter().next().unwrap_or_default();
        if !asked.by.is_empty() {
            levels.push(deepest);
        }
        (total, levels)
    } else {
        read_levels(api, path, asked, deepest).await?
    };
    let by_day = match by_day {
        Ok(Some(by_day)) => Ok(by_day),
        Ok(None) => series(api, path, asked, levels.first()).await,
        Err(failure) => Err(failure),
    };
    Ok(Found { total, levels, by_day })
}

/// Reads the sums above groups that are more than the API lists.
pub(super) async fn read_levels(
    api: &Client,
    path: &str,
    asked: &Asked,
    deepest: Vec<Group>,
) -> Result<(Group, Vec<Vec<Group>>), Failure> {
    let above = (1..asked.by.len()).map(|depth| {
        let path = format!("{path}{}", asked.groups(&asked.by[..depth], ROWS_MAX));
        async move { api.get::<List<Group>>(&path).await.map(|list| list.items) }
    });
    let total = format!("{path}{}", asked.groups(&[], 0));
    let (total, mut levels) = tokio::try_join!(api.get::<List<Group>>(&total), try_join_all(above))?;
    levels.push(deepest);
    Ok((total.items.into_iter().next().unwrap_or_default(), levels))
}

/// Sums groups by the first of their dimensions, the largest first.
pub(super) fn summed(groups: &[Group], by: &[String]) -> Vec<Group> {
    let mut sums: BTreeMap<Vec<&str>, Group> = BTreeMap::new();
    for group in groups {
        let values: Vec<&str> = by.iter().map(|dimension| group.value(dimension)).collect();
        let sum = sums.entry(values).or_insert_with(|| Group {
            values: by.iter().map(|name| (name.clone(), group.value(name).into())).collect(),
            ..Group::default()
        });
        sum.credits = sum.credits.plus(group.credits);
        sum.events += group.events;
        for (name, amount) in &group.quantities {
            let known = sum.quantities.entry(name.clone()).or_insert(Sum::ZERO);
            *known = known.plus(*amount);
        }
    }
    let mut sums: Vec<Group> = sums.into_values().collect();
    sums.sort_by_key(|group| std::cmp::Reverse(group.credits));
    sums
}

/// Sums by day, of all and of the largest groups.
pub(super) struct ByDay {
    pub(super) all: BTreeMap<i32, Sum>,
    /// The value of each group, what it came to, and its days.
    pub(super) groups: Vec<(String, Sum, BTreeMap<i32, Sum>)>,
}

/// Reads the days of all groups at once; none where they are too many for one answer.
pub(super) async fn days_of(
    api: &Client,
    path: &str,
    asked: &Asked,
    first: Option<&String>,
) -> Result<Option<ByDay>, Failure> {
    let Some(first) = first else { return Ok(None) };
    let mut pairs = asked.meant();
    pairs.push(("group_by".to_owned(), format!("day,{first}")));
    pairs.push(("limit".to_owned(), ROWS_MAX.to_string()));
    pairs.push(("quantities".to_owned(), "false".to_owned()));
    let query = pairs.into_iter().collect::<Fields>().link();
    let list: List<Group> = api.get(&format!("{path}{query}")).await?;
    Ok(list.next_cursor.is_none().then(|| by_day(&list.items, first)))
}

pub(super) fn by_day(groups: &[Group], dimension: &str) -> ByDay {
    let mut all = BTreeMap::new();
    let mut named: BTreeMap<&str, BTreeMap<i32, Sum>> = BTreeMap::new();
    for group in groups {
        let Ok(day) = group.value("day").parse::<Day>() else { continue };
        let of_all = all.entry(day.days()).or_insert(Sum::ZERO);
        *of_all = of_all.plus(group.credits);
        named.entry(group.value(dimension)).or_default().insert(day.days(), group.credits);
    }
    let groups = named.into_iter().map(|(value, days)| {
        let sum = days.values().fold(Sum::ZERO, |sum, day| sum.plus(*day));
        (value.to_owned(), sum, days)
    });
    let mut groups: Vec<(String, Sum, BTreeMap<i32, Sum>)> = groups.collect();
    groups.sort_by_key(|(_, sum, _)| std::cmp::Reverse(*sum));
    groups.truncate(COLOURS.len() - 1);
    ByDay { all, groups }
}

pub(super) async fn series(
    api: &Client,
    path: &str,
    asked: &Asked,
    level: Option<&Vec<Group>>,
) -> Result<ByDay, Failure> {
    let first = asked.by.first().filter(|dimension| *dimension != "day");
    let largest = first.and(level).into_iter().flatten().take(COLOURS.len() - 1);
    let of_group = |group: &Group| {
        let dimension = first.map(String::as_str).unwrap_or_default();
        let value = group.value(dimension).to_owned();
        let (asked, credits) = (asked.with_filter(dimension, &value), group.credits);
        async move { days(api, path, &asked).await.map(|days| (value, credits, days)) }
    };
    let (all, groups) = tokio::join!(days(api, path, asked), join_all(largest.map(of_group)));
    Ok(ByDay { all: all?, groups: groups.into_iter().collect::<Result<_, _>>()? })
}

pub(super) async fn days(api: &Client, path: &str, asked: &Asked) -> Result<BTreeMap<i32, Sum>, Failure> {
    let mut days = BTreeMap::new();
    let mut cursor = None;
    for _ in 0..DAY_PAGES_MAX {
        let mut pairs = asked.meant();
        pairs.push(("group_by".to_owned(), "day".to_owned()));
        pairs.push(("limit".to_owned(), ROWS_MAX.to_string()));
        pairs.push(("quantities".to_owned(), "false".to_owned()));
        pairs.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor)));
        let query = pairs.into_iter().collect::<Fields>().link();
        let list: List<Group> = api.get(&format!("{path}{query}")).await?;
        for group in &list.items {
            if let Ok(day) = group.value("day").parse::<Day>() {
                days.insert(day.days(), group.credits);
            }
        }
        cursor = list.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_add_up_to_those_above_them() {
        let groups: Vec<Group> = serde_json::from_value(serde_json::json!([
            {"category": "chat", "model": "a", "credits": "5", "events": 1, "quantities": {"tokens": "7"}},
            {"category": null, "model": "a", "credits": "20", "events": 2, "quantities": {}},
            {"category": "chat", "model": "b", "credits": "3", "events": 4, "quantities": {"tokens": "1"}},
        ]))
        .expect("groups");
        let said: Vec<String> = summed(&groups, &["category".to_owned()])
            .iter()
            .map(|group| format!("{} {} {}", group.value("category"), group.credits.0, group.events))
            .collect();
        assert_eq!(said, [" 20 2", "chat 8 5"]);
        let all = &summed(&groups, &[])[0];
        assert_eq!((all.credits.0.to_string().as_str(), all.events), ("28", 7));
        assert_eq!(all.quantities["tokens"].0.to_string(), "8");
    }
}
