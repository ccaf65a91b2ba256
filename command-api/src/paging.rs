//! Paging: how many rows a page of a list has, and where the next begins.

use schemars::JsonSchema;
use serde::Deserialize;
use web::http::Problem;

const ROWS: i64 = 50;
const ROWS_MAX: i64 = 500;

/// What a request for a page of a list may say.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Rows of a page; by default 50.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<i64>,
    /// The `next_cursor` of the previous page.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// Returns the size of the page: 422 unless it is 1 to 500.
    pub fn size(&self) -> Result<PageSize, Problem> {
        PageSize::of(self.limit)
    }
}

/// Rows of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize(i64);

impl PageSize {
    fn of(limit: Option<i64>) -> Result<PageSize, Problem> {
        let rows = limit.unwrap_or(ROWS);
        if (1..=ROWS_MAX).contains(&rows) {
            return Ok(PageSize(rows));
        }
        Err(Problem::bad_field("limit", "out_of_range", "must be 1 to 500"))
    }

    /// Returns how many rows to read: one more than the page has, which shows whether another page follows.
    pub fn rows_to_ask(self) -> i64 {
        self.0 + 1
    }

    /// Cuts the rows to a page, with the cursor of the next, made from the page's last row.
    pub fn cut<T>(self, mut rows: Vec<T>, cursor: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
        let most = usize::try_from(self.0).unwrap_or(usize::MAX);
        let has_more = rows.len() > most;
        rows.truncate(most);
        let next = rows.last().filter(|_| has_more).map(cursor);
        (rows, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_1_to_500_rows_and_names_the_next_if_there_is_one() {
        for bad in [0, -1, 501, i64::MAX] {
            assert_eq!(PageSize::of(Some(bad)).expect_err("no size").errors[0].field, "limit", "{bad}");
        }
        assert_eq!(PageSize::of(None).map(PageSize::rows_to_ask), Ok(51));
        let two = PageSize::of(Some(2)).expect("a size");
        assert_eq!(two.cut(vec![1, 2, 3], i32::to_string), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(two.cut(vec![1, 2], i32::to_string), (vec![1, 2], None));
    }
}
