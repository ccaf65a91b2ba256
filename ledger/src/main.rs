//! Command line of the ledger.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
#[cfg(feature = "bench")]
use ledger::bench::{self, BenchConfig};
#[cfg(feature = "demo")]
use ledger::demo::{self, DemoConfig};
use ledger::doctor;
use ledger::key::{self, KeyCommand};
use ledger::migrate::{self, Migrate};
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
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything on this machine: Kafka and PostgreSQL where none are named, and every service on one address.
    Up(Box<UpConfig>),
    /// Shows what it can do: feeds a real trace of LLM calls to a ledger of its own, and proves the figures right.
    #[cfg(feature = "demo")]
    Demo(Box<DemoConfig>),
    /// Runs one service, as in production.
    #[command(subcommand)]
    Serve(Box<Service>),
    /// Starts Kafka and PostgreSQL only, and waits for Ctrl-C.
    Stack {
        #[command(flatten)]
        stack: StackArgs,
    },
    /// Measures, each figure next to a ceiling of the same run: lines of JSON.
    #[cfg(feature = "bench")]
    Bench(BenchConfig),
    /// Makes the tables of this version, and grants each service's login its rights
    Migrate(Box<Migrate>),
    /// Writes the journal as it is stored, one line of JSON a record
    Replay(Replay),
    /// Folds the read model, or the alerts, anew from the journal, compares with the live generation and makes it live
    Rebuild(Box<Rebuild>),
    /// Folds the journal anew, compares every row of the live read model and alerts with it, and changes nothing
    Verify(Box<Verify>),
    /// Lets notifications that were parked go out again
    Redeliver(Redeliver),
    /// Lets halted accounts be folded on, once what halted them is mended
    Resume(Resume),
    /// Says what has become of a top-up that the payment provider has not reported for 20 hours
    #[command(alias = "decide-top-up")]
    ResolveTopUp(ResolveTopUp),
    /// Lists payments that came to nothing, and says what becomes of one
    ResolvePayment(ResolvePayment),
    /// Makes API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Says what of the local stack is found and what is missing.
    Doctor {
        #[command(flatten)]
        stack: StackArgs,
    },
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
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ledger: {error:#}");
            ExitCode::FAILURE
        }
    }
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
            let equal = rebuild::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::from(u8::from(!equal)))
        }
        Command::Verify(arguments) => {
            telemetry::init();
            Ok(run_verify(&arguments).await)
        }
        Command::Resume(arguments) => {
            let all = resume::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::from(u8::from(!all)))
        }
        Command::ResolveTopUp(arguments) => {
            resolve_top_up::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::ResolvePayment(arguments) => {
            resolve_payment::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Redeliver(arguments) => {
            let all = redeliver::run(&arguments, &mut std::io::stdout()).await?;
            Ok(ExitCode::from(u8::from(!all)))
        }
        Command::Key(command) => {
            key::run(&command, &mut std::io::stdout(), &mut std::io::stderr()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor { stack } => {
            let how = stack.kafka_client.describe();
            let complete = doctor::run(&stack.options()?, &how, &mut std::io::stdout()).await?;
            Ok(ExitCode::from(u8::from(!complete)))
        }
    }
}

/// Ends with 1 if anything differs, and with 2 if that could not be found out.
async fn run_verify(arguments: &Verify) -> ExitCode {
    match verify::run(arguments, &mut std::io::stdout()).await {
        Ok(equal) => ExitCode::from(u8::from(!equal)),
        Err(error) => {
            say(&format!("ledger: could not finish: {error:#}"));
            ExitCode::from(2)
        }
    }
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
        "the ledger serves at {}\noperator key: {}\nKafka for producers: {}\nCtrl-C stops it; the data stays\n",
        up.url,
        up.operator_key,
        up.kafka.brokers
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
