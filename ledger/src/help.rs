//! What `--help` adds to each command: two examples, and what its exit code means.

/// What to do first.
pub const FIRST_STEPS: &str = "\
Begin with:
  ledger doctor    what this machine has, and how to get what is missing
  ledger demo      a real trace of LLM calls, every figure proved; stays up in a terminal
  ledger up        Kafka, PostgreSQL and all services on http://127.0.0.1:8080

`ledger help COMMAND` has two examples of each command.";

pub const UP: &str = "\
Examples:
  ledger up
      Starts Kafka and PostgreSQL, and serves at 127.0.0.1:8080
  ledger up --kafka-brokers kafka:9092 --database-url postgres://ledger@db/ledger
      Serves on a Kafka and a PostgreSQL that run already

Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 failed, 2 wrong arguments";

pub const DEMO: &str = "\
Examples:
  ledger demo
      Runs, prints the proof, and stays up if this is a terminal
  ledger demo --exit --data-dir /tmp/demo
      Runs in a data directory of its own, and ends

Exit codes: 0 every figure was right, 1 failed or a figure was wrong, 2 wrong arguments";

pub const SERVE: &str = "\
Examples:
  ledger serve command-api --kafka-brokers kafka:9092 --database-url postgres://ledger_command_api@db/ledger
      The write side; both addresses may stand in KAFKA_BROKERS and DATABASE_URL
  ledger serve projector --listen 0.0.0.0:8081 --database-url postgres://ledger_projector@db/ledger
      A projector; start several to share the partitions

Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 failed, 2 wrong arguments";

pub const STACK: &str = "\
Examples:
  ledger stack
      Starts both, prints KAFKA_BROKERS and DATABASE_URL, and waits
  ledger stack --data-dir /tmp/stack
      Keeps what they store in another directory

Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 failed, 2 wrong arguments";

pub const BENCH: &str = "\
Examples:
  ledger bench
      Measures everything, about half an hour on 2 cores
  ledger bench fold ingest --json
      Two of them, a line of JSON for each figure

Exit codes: 0 measured, 1 failed, 2 wrong arguments. A figure below its aim is no failure";

pub const MIGRATE: &str = "\
Examples:
  ledger migrate --database-url postgres://owner@db/ledger
      Makes or changes the tables, as their owner
  ledger migrate --roles
      Makes the services' logins too; passwords and DATABASE_URL come from the environment

Exit codes: 0 done, 1 failed, 2 wrong arguments";

pub const REPLAY: &str = "\
Examples:
  ledger replay --account acme
      One account's records, oldest first
  ledger replay --partition 3 --from 3:1041 --follow
      One partition from a position on, and what comes later

Exit codes: 0 done, 1 failed, 2 wrong arguments";

pub const REBUILD: &str = "\
Examples:
  ledger rebuild
      Folds a new generation, compares it with the live one, and makes it live if they are equal
  ledger rebuild --model alerting --no-flip --json
      Compares the alerts only, and prints the result as JSON

Exit codes: 0 equal or made live, 1 different or failed, 2 wrong arguments";

pub const VERIFY: &str = "\
Examples:
  ledger verify
      Names each row that is not what the journal says
  ledger verify --against https://ledger.example --checkpoint kept --json
      Over HTTP, with an auditor's key in LEDGER_KEY: the trees, and a checkpoint that the auditor kept

Exit codes: 0 all is equal, 1 something was found, 2 it could not find out, or wrong arguments";

pub const EXPLAIN: &str = "\
Examples:
  ledger explain --account acme --figure settled
      What was carried into the period and every line of the ledger since
  ledger explain --account acme --figure used --user ana --as-of 2026-01-31T00:00:00Z --json
      What a user had used at the end of a day, as JSON

Exit codes: 0 explained, 1 failed or refused, 2 wrong arguments";

pub const REDELIVER: &str = "\
Examples:
  ledger redeliver --account acme
      Sends again what is parked for one account
  ledger redeliver --all-parked --json
      Everything that is parked, and prints a line of JSON for each

Exit codes: 0 all go out again, 1 some can't or it failed, 2 wrong arguments";

pub const RESUME: &str = "\
Examples:
  ledger resume acme
      Folds a halted account on, and waits for the outcome
  ledger resume --all --json
      All of them, a line of JSON for each

Exit codes: 0 all go on, 1 some are halted again or it failed, 2 wrong arguments";

pub const RESOLVE_TOP_UP: &str = "\
Examples:
  ledger resolve-top-up acme --paid pi_123
      The provider shows this payment for the attempt
  ledger resolve-top-up acme --failed \"the bank refused\"
      The provider shows no payment

Exit codes: 0 done, 1 failed, 2 wrong arguments";

pub const RESOLVE_PAYMENT: &str = "\
Examples:
  ledger resolve-payment --list
      What waits for a decision
  ledger resolve-payment pi_123 --credit 100 --reason \"paid, but the account was closed\"
      Credits the payment after all

Exit codes: 0 done, 1 failed, 2 wrong arguments";

pub const KEY_CREATE: &str = "\
Examples:
  ledger key create --role producer --account acme
      Sends usage of one account
  ledger key create --role auditor --name audit --expires-at 2099-01-31T00:00:00Z
      Reads everything, until then

The secret is the only line on standard output.
Exit codes: 0 made, 1 failed, 2 wrong arguments";

pub const DOCTOR: &str = "\
Examples:
  ledger doctor
      What `ledger up` needs here
  ledger doctor --kafka-brokers kafka:9092 --json
      Whether that Kafka answers, as JSON

Exit codes: 0 everything needed is there, 1 something is missing, 2 wrong arguments";

pub const COMPLETIONS: &str = "\
Examples:
  ledger completions bash > /etc/bash_completion.d/ledger
      For every user of bash on this machine
  ledger completions zsh > ~/.zfunc/_ledger
      For zsh, where ~/.zfunc is in its fpath

Exit codes: 0 written, 1 failed, 2 wrong arguments";

pub const OPENAPI: &str = "\
Examples:
  ledger openapi
      Every request and every answer, by OpenAPI 3.1
  ledger openapi --older
      The same by OpenAPI 3.0, for generators that do not read 3.1

Exit codes: 0 written, 1 failed, 2 wrong arguments";
