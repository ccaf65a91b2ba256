//! Command line of the ledger.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
#[cfg(feature = "bench")]
use ledger::bench::{self, BenchConfig};
#[cfg(feature = "demo")]
use ledger::demo::{self, DemoConfig};
use ledger::doctor;
use ledger::explain::{self, Explain};
use ledger::help;
use ledger::key::{self, KeyCommand};
use ledger::migrate::{self, Migrate};
use ledger::openapi::{self, Openapi};
use ledger::rebuild::{self, Rebuild};
use ledger::redeliver::{self, Redeliver};
use ledger::replay::{self, Replay};
use ledger::resolve_payment::{self, ResolvePayment};
use ledger::resolve_top_up::{self, ResolveTopUp};
use ledger::resume::{self, Resume};
use ledger::serve::{self, Service};
use ledger::up::{self, UpConfig};
use ledger::verify::{self, Verify};
use local_stack::{Stack, StackOptions};
use platform::kafka::ClientSettings;
use platform::{shutdown, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// The credit ledger.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = help::FIRST_STEPS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything on this machine: Kafka and PostgreSQL where none are named, and every service on one address.
    #[command(after_help = help::UP)]
    Up(Box<UpConfig>),
    /// Shows what it can do: feeds a real trace of LLM calls to a ledger of its own, and proves the figures right.
    #[cfg(feature = "demo")]
    #[command(after_help = help::DEMO)]
    Demo(Box<DemoConfig>),
    /// Runs one service, as in production.
    #[command(subcommand)]
    #[command(after_help = help::SERVE)]
    Serve(Box<Service>),
    /// Starts Kafka and PostgreSQL only, and waits for Ctrl-C.
    #[command(after_help = help::STACK)]
    Stack {
        #[command(flatten)]
        stack: StackArgs,
    },
    /// Measures, each figure next to a ceiling of the same run: lines of JSON.
    #[cfg(feature = "bench")]
    #[command(after_help = help::BENCH)]
    Bench(BenchConfig),
    /// Makes the tables of this version, and grants each service's login its rights
    #[command(after_help = help::MIGRATE)]
    Migrate(Box<Migrate>),
    /// Writes the journal as it is stored, one line of JSON a record
    #[command(after_help = help::REPLAY)]
    Replay(Replay),
    /// Folds the read model, or the alerts, anew from the journal, compares with the live generation and makes it live
    #[command(after_help = help::REBUILD)]
    Rebuild(Box<Rebuild>),
    /// Holds the journal against what was signed and kept of it, folds it anew, compares every live row, changes nothing
    #[command(after_help = help::VERIFY)]
    Verify(Box<Verify>),
    /// Shows how a figure came about, as a tree whose amounts add up
    #[command(after_help = help::EXPLAIN)]
    Explain(Box<Explain>),
    /// Lets notifications that were parked go out again
    #[command(after_help = help::REDELIVER)]
    Redeliver(Redeliver),
    /// Lets halted accounts be folded on, once what halted them is mended
    #[command(after_help = help::RESUME)]
    Resume(Resume),
    /// Says what has become of a top-up that the payment provider has not reported for 20 hours
    #[command(alias = "decide-top-up")]
    #[command(after_help = help::RESOLVE_TOP_UP)]
    ResolveTopUp(ResolveTopUp),
    /// Lists payments that came to nothing, and says what becomes of one
    #[command(after_help = help::RESOLVE_PAYMENT)]
    ResolvePayment(ResolvePayment),
    /// Makes API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Writes the OpenAPI document, to generate clients from
    #[command(after_help = help::OPENAPI)]
    Openapi(Openapi),
    /// Says what of the local stack is found and what is missing
    #[command(after_help = help::DOCTOR)]
    Doctor {
        #[command(flatten)]
        stack: StackArgs,
        /// Prints the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Writes a script that completes commands and options in a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions { shell: Shell },
}

/// Where the local stack is.
#[derive(Debug, Args)]
struct StackArgs {
    /// Where everything is kept that the local stack leaves behind.
    #[arg(long, env = "LEDGER_DATA_DIR", default_value = ".data")]
    data_dir: PathBuf,
    /// A Kafka that runs already; without it one is started.
    #[arg(long, env = "KAFKA_BROKERS")]
    kafka_brokers: Option<String>,
    #[command(flatten)]
    kafka_client: ClientSettings,
    /// A PostgreSQL that runs already; without it one is started.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl StackArgs {
    fn options(self) -> Result<StackOptions> {
        let kafka_client = self.kafka_client.pairs().map_err(anyhow::Error::msg)?;
        let named = StackOptions::named(self.data_dir, self.kafka_brokers, self.database_url);
        Ok(StackOptions { kafka_client, ..named })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&with_headings(Cli::command()).get_matches());
    let cli = cli.unwrap_or_else(|error| error.exit());
    match run(cli.command).await {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ledger: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Options that say where Kafka is and how to connect to it, beside those named `kafka-…`.
const OF_KAFKA: [&str; 4] = ["topic-prefix", "partitions", "replication", "instance-id"];
const OF_PLACE: [&str; 2] = ["database-url", "data-dir"];

/// Puts a command's own options before those that many commands share.
fn with_headings(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let heading = match arg.get_long() {
            Some(long) if long.starts_with("kafka-") || OF_KAFKA.contains(&long) => "Kafka",
            Some(long) if OF_PLACE.contains(&long) => "Database and data directory",
            _ => return arg,
        };
        arg.help_heading(heading)
    });
    command.mut_subcommands(with_headings)
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(config) => run_up(*config).await,
        #[cfg(feature = "demo")]
        Command::Demo(config) => {
            // librdkafka's warnings while a fresh Kafka settles are harmless.
            telemetry::init_with("warn,librdkafka=error");
            demo::run(*config, shutdown::on_signal()?, &mut std::io::stdout(), say).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve(service) => {
            telemetry::init();
            serve::run(*service, shutdown::on_signal()?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Stack { stack } => run_stack(stack.options()?).await,
        #[cfg(feature = "bench")]
        Command::Bench(config) => {
            telemetry::init();
            bench::run(&config, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Migrate(arguments) => {
            telemetry::init();
            migrate::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Replay(replay) => {
            replay::run(&replay, &mut BufWriter::new(std::io::stdout())).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Rebuild(arguments) => {
            telemetry::init();
            Ok(exit_code(rebuild::run(&arguments, &mut std::io::stdout()).await?))
        }
        Command::Verify(arguments) => {
            telemetry::init();
            Ok(run_verify(&arguments).await)
        }
        Command::Explain(arguments) => run_explain(&arguments).await,
        Command::Resume(arguments) => Ok(exit_code(resume::run(&arguments, &mut std::io::stdout()).await?)),
        Command::ResolveTopUp(arguments) => {
            resolve_top_up::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ResolvePayment(arguments) => {
            resolve_payment::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Redeliver(arguments) => {
            Ok(exit_code(redeliver::run(&arguments, &mut std::io::stdout()).await?))
        }
        Command::Key(command) => {
            key::run(&command, &mut std::io::stdout(), &mut std::io::stderr()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Openapi(which) => {
            openapi::write(which, &mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor { stack, json } => {
            let how = stack.kafka_client.describe();
            Ok(exit_code(doctor::run(&stack.options()?, &how, json, &mut std::io::stdout()).await?))
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ledger", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Returns 0 if all is well, and 1 if something was found or left.
fn exit_code(is_well: bool) -> ExitCode {
    ExitCode::from(u8::from(!is_well))
}

/// Ends with 1 if anything differs, and with 2 if that could not be found out.
async fn run_verify(arguments: &Verify) -> ExitCode {
    match verify::run(arguments, &mut std::io::stdout()).await {
        Ok(equal) => exit_code(equal),
        Err(error) => {
            say(&format!("ledger: could not finish: {error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn run_explain(arguments: &Explain) -> Result<ExitCode> {
    explain::run(arguments, &mut std::io::stdout()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn run_up(config: UpConfig) -> Result<ExitCode> {
    telemetry::init();
    let stopping = shutdown::on_signal()?;
    let mut up = tokio::select! {
        up = up::start(config, say) => up?,
        () = stopping.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    // The reader of our output may have closed it: that is no reason to stop serving.
    let _ = write!(
        std::io::stdout().lock(),
        "the ledger serves at {}\noperator key: {}\nKafka for producers: {}\n\
         console, signed in (once, within 5 minutes): {}\nCtrl-C stops it; the data stays\n",
        up.url,
        up.operator_key,
        up.kafka.brokers,
        up.sign_in_link()
    );
    let ended = tokio::select! {
        () = stopping.cancelled() => None,
        why = up.ended() => Some(why),
    };
    say("stopping");
    up.stop().await?;
    match ended {
        Some(why) => anyhow::bail!(why),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn run_stack(options: StackOptions) -> Result<ExitCode> {
    let mut stack = tokio::select! {
        stack = Stack::start(options, say) => stack?,
        () = asked_to_stop() => return Ok(ExitCode::SUCCESS),
    };
    let mut out = std::io::stdout();
    writeln!(out, "KAFKA_BROKERS={}", stack.kafka_brokers)?;
    writeln!(out, "DATABASE_URL={}", stack.database_url)?;
    out.flush()?;
    let ended = tokio::select! {
        () = asked_to_stop() => None,
        name = stack.watch() => Some(name),
    };
    say("stopping");
    stack.stop().await?;
    match ended {
        Some(name) => anyhow::bail!("{name} ended by itself: its log is in the data directory"),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Completes at Ctrl-C or SIGTERM.
async fn asked_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command without subcommands, with the words that call it.
    fn commands(command: &clap::Command, words: &str) -> Vec<(String, clap::Command)> {
        let own: Vec<&clap::Command> =
            command.get_subcommands().filter(|one| one.get_name() != "help").collect();
        if own.is_empty() || words == "ledger serve" {
            return vec![(words.to_owned(), command.clone())];
        }
        own.into_iter().flat_map(|one| commands(one, &format!("{words} {}", one.get_name()))).collect()
    }

    #[test]
    fn each_command_has_two_examples_that_parse_and_its_exit_codes() {
        let all = commands(&Cli::command(), "ledger");
        assert!(all.len() >= 14, "{}", all.len());
        for (words, command) in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  ledger")).collect();
            assert_eq!(examples.len(), 2, "{words}: {help}");
            assert!(help.contains("Exit codes: 0 "), "{words}: {help}");
            for example in examples {
                let line = format!("ledger{}", example.split(" > ").next().unwrap_or_default());
                assert!(line.starts_with(&words), "{line} is an example of {words}");
                let parsed = Cli::try_parse_from(split(&line));
                assert!(parsed.is_ok(), "{line}: {:?}", parsed.err().map(|error| error.to_string()));
            }
        }
    }

    /// Splits as a shell does, with double quotes only.
    fn split(line: &str) -> Vec<String> {
        let parts = line.split('"').enumerate();
        let words = parts.flat_map(|(nth, part)| match nth % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        });
        words.collect()
    }

    #[test]
    fn shared_options_come_after_a_commands_own() {
        let command = with_headings(Cli::command());
        let rebuild = command.find_subcommand("rebuild").expect("a command");
        let heading = |long: &str| {
            let arg = rebuild.get_arguments().find(|arg| arg.get_long() == Some(long)).expect(long);
            arg.get_help_heading().map(str::to_owned)
        };
        assert_eq!(heading("kafka-brokers").as_deref(), Some("Kafka"));
        assert_eq!(heading("partitions").as_deref(), Some("Kafka"));
        assert_eq!(heading("database-url").as_deref(), Some("Database and data directory"));
        assert_eq!(heading("no-flip"), None);
    }
}
