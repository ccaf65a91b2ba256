//! The names of models and of their generations: schemas `<model>_<n>`.

use std::fmt;
use std::str::FromStr;

/// A set of tables that is rebuilt from the journal as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    /// Balances and history, written by the projector.
    ReadModel,
    /// Alerts, notices and deliveries, written by the alert worker.
    Alerting,
}

impl Model {
    pub(super) const ALL: [Model; 2] = [Model::ReadModel, Model::Alerting];

    /// Returns the name used in schemas and in the row of the live generation.
    pub const fn name(self) -> &'static str {
        match self {
            Model::ReadModel => "read_model",
            Model::Alerting => "alerting",
        }
    }

    /// Returns the model's number in advisory locks.
    pub(super) const fn number(self) -> i32 {
        match self {
            Model::ReadModel => 1,
            Model::Alerting => 2,
        }
    }
}

/// One generation of a model; its text is the schema's name and needs no quoting in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Schema {
    pub model: Model,
    /// Counts from 1.
    pub generation: i32,
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.model.name(), self.generation)
    }
}

/// The text is not the name of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a generation: want a name like read_model_1")]
pub struct NotASchema;

impl FromStr for Schema {
    type Err = NotASchema;

    fn from_str(text: &str) -> Result<Self, NotASchema> {
        let (name, number) = text.rsplit_once('_').ok_or(NotASchema)?;
        let model = Model::ALL.into_iter().find(|model| model.name() == name).ok_or(NotASchema)?;
        let generation = number.parse().map_err(|_| NotASchema)?;
        let schema = Schema { model, generation };
        // Accept only one spelling of a number: 01 and +1 name no schema.
        if generation < 1 || schema.to_string() != text {
            return Err(NotASchema);
        }
        Ok(schema)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_reads_back_as_written() {
        for text in ["read_model_1", "alerting_12"] {
            let schema: Schema = text.parse().expect("a schema");
            assert_eq!(schema.to_string(), text);
        }
    }

    #[test]
    fn nothing_else_can_reach_sql_as_a_schema() {
        for text in [
            "",
            "read_model",
            "read_model_",
            "read_model_0",
            "read_model_01",
            "read_model_-1",
            "read_model_+1",
            "control_1",
            "read_model_1; drop table x",
            "Read_Model_1",
        ] {
            assert_eq!(text.parse::<Schema>(), Err(NotASchema), "{text}");
        }
    }
}
