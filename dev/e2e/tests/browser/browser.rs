//! Browser: a headless Chromium with one window, and what is checked of every page in it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use url::{ParseError, Url};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// Widths that every page is looked at: a phone, a tablet, a desk.
const WIDTHS: [u32; 3] = [360, 768, 1440];
const THEMES: [&str; 2] = ["light", "dark"];
const HEIGHT: u32 = 900;
/// Taller pages are cut off in their picture.
const HEIGHT_MAX: u32 = 6_000;
/// How long a page may take to show what a test waits for.
const SHOWN_MAX: Duration = Duration::from_secs(20);
/// Waits until what follows the load has been drawn: times in the reader's zone, the live badge.
const SETTLED: &str = "
    const done = arguments[0];
    const drawn = () => requestAnimationFrame(() => requestAnimationFrame(done));
    document.fonts.ready.then(() => document.readyState === 'complete' ? drawn() : addEventListener('load', drawn));";
const AXE: &str = "
    const done = arguments[0];
    axe.run().then(
        (found) => done(found.violations.map((one) => `${one.id}: ${one.help} (${one.nodes.slice(0, 3)
            .map((node) => node.target.join(' ')).join(', ')})`)),
        (error) => done([String(error)]));";

const ARGUMENTS: [&str; 5] =
    ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en"];

pub struct Browser {
    driver: Client,
    axe: String,
    url: String,
    /// Killed when dropped.
    _process: Child,
}

impl Browser {
    /// Starts a browser for the pages of this address.
    pub async fn start(url: &str) -> Result<Browser> {
        let (mut process, port) = start_driver().await?;
        let wants = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": ARGUMENTS},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let wants: Capabilities = serde_json::from_value(wants)?;
        let address = format!("http://127.0.0.1:{port}");
        let driver = ClientBuilder::new(HttpConnector::new()).capabilities(wants).connect(&address).await;
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                let _ = process.kill().await;
                bail!("Chromium does not start: apt-get install chromium chromium-driver: {error}");
            }
        };
        Ok(Browser { driver, axe: axe()?, url: url.to_owned(), _process: process })
    }

    /// Ends the browser; one that is only dropped would stay.
    pub async fn stop(self) -> Result<()> {
        Ok(self.driver.close().await?)
    }

    pub async fn go(&self, path: &str) -> Result<()> {
        self.driver.goto(&format!("{}{path}", self.url)).await?;
        self.driver.execute_async(SETTLED, Vec::new()).await?;
        Ok(())
    }

    /// Signs in by the form, as a person does.
    pub async fn sign_in(&self, key: &str) -> Result<()> {
        self.go("/login").await?;
        self.fill("#key", key).await?;
        self.click(".login .button").await?;
        self.waits_for(".who").await
    }

    pub async fn fill(&self, selector: &str, text: &str) -> Result<()> {
        let field = self.driver.find(Locator::Css(selector)).await?;
        field.clear().await?;
        Ok(field.send_keys(text).await?)
    }

    pub async fn click(&self, selector: &str) -> Result<()> {
        Ok(self.driver.find(Locator::Css(selector)).await?.click().await?)
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: &str) -> Result<()> {
        let pressed = keys.chars().fold(KeyActions::new("keys".to_owned()), |actions, value| {
            actions.then(KeyAction::Down { value }).then(KeyAction::Up { value })
        });
        Ok(self.driver.perform_actions(pressed).await?)
    }

    /// Returns the visible text of the first element.
    pub async fn text(&self, selector: &str) -> Result<String> {
        let found = self.driver.find(Locator::Css(selector)).await?;
        Ok(found.text().await?)
    }

    pub async fn path(&self) -> Result<String> {
        let url = self.driver.current_url().await?;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(format!("{}{query}", url.path()))
    }

    /// Evaluates a script's `return`.
    pub async fn asks(&self, script: &str) -> Result<Value> {
        Ok(self.driver.execute(script, Vec::new()).await?)
    }

    /// Asks and waits in the page of a frame, until [`Browser::leave_frame`].
    pub async fn enter_frame(&self, selector: &str) -> Result<()> {
        Ok(self.driver.find(Locator::Css(selector)).await?.enter_frame().await?)
    }

    pub async fn leave_frame(&self) -> Result<()> {
        Ok(self.driver.enter_parent_frame().await?)
    }

    /// Waits until an element is there.
    pub async fn waits_for(&self, selector: &str) -> Result<()> {
        self.waits_until(&format!("return !!document.querySelector({})", json!(selector))).await
    }

    /// Waits until a script returns true.
    pub async fn waits_until(&self, script: &str) -> Result<()> {
        let end = Instant::now() + SHOWN_MAX;
        while self.asks(script).await.ok() != Some(Value::Bool(true)) {
            ensure!(Instant::now() < end, "never true on {}: {script}", self.path().await?);
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Looks at a page in every width and theme: it fits, says nothing on the console, and axe finds nothing. Keeps a
    /// picture of each in `target/screenshots`.
    pub async fn look(&self, name: &str, path: &str) -> Result<()> {
        self.look_at(name, path, &[]).await
    }

    /// Looks at a page whose loading may leave a line on the console, such as one of an error.
    pub async fn look_at(&self, name: &str, path: &str, may_say: &[&str]) -> Result<()> {
        for theme in THEMES {
            let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
            self.tool("Emulation.setEmulatedMedia", scheme).await?;
            for width in WIDTHS {
                let what = format!("{name}, {width} px, {theme}");
                self.size(width, HEIGHT).await?;
                self.go(path).await?;
                let beyond = self.asks("return document.documentElement.scrollWidth - innerWidth").await?;
                ensure!(beyond.as_i64().is_some_and(|beyond| beyond <= 0), "{what}: {beyond} px too wide");
                self.keep(&format!("{name}-{width}-{theme}"), width).await?;
                self.tool("Runtime.evaluate", json!({"expression": self.axe})).await?;
                let faults = self.driver.execute_async(AXE, Vec::new()).await?;
                ensure!(faults == json!([]), "{what}: axe finds {faults:#}");
                let said = self.said(may_say).await?;
                ensure!(said.is_empty(), "{what}: the console says {said:?}");
            }
        }
        self.size(WIDTHS[2], HEIGHT).await
    }

    pub async fn size(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.tool("Emulation.setDeviceMetricsOverride", size).await
    }

    /// Returns the warnings and errors on the console since it was last asked.
    pub async fn said(&self, may_say: &[&str]) -> Result<Vec<String>> {
        let asked = Vendor { path: "se/log", body: json!({"type": "browser"}) };
        let entries = self.driver.issue_cmd(asked).await?;
        let entries = entries.as_array().context("a log")?;
        let is_fault = |entry: &&Value| entry["level"] == "WARNING" || entry["level"] == "SEVERE";
        let said = entries.iter().filter(is_fault).map(|entry| entry["message"].to_string());
        Ok(said.filter(|said| !may_say.iter().any(|word| said.contains(word))).collect())
    }

    async fn keep(&self, file: &str, width: u32) -> Result<()> {
        let height = self.asks("return document.documentElement.scrollHeight").await?;
        let height = height.as_u64().and_then(|height| u32::try_from(height).ok()).unwrap_or(HEIGHT);
        self.size(width, height.clamp(HEIGHT, HEIGHT_MAX)).await?;
        let folder = PathBuf::from(ROOT).join("target/screenshots");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{file}.png")), self.driver.screenshot().await?)?;
        Ok(())
    }

    /// Sends a command of Chromium's own protocol.
    pub async fn tool(&self, command: &str, arguments: Value) -> Result<()> {
        let asked = Vendor { path: "goog/cdp/execute", body: json!({"cmd": command, "params": arguments}) };
        self.driver.issue_cmd(asked).await?;
        Ok(())
    }
}

/// A command of Chromium's driver that the standard does not have.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

/// Starts the driver on a free port, and returns the port.
async fn start_driver() -> Result<(Child, u16)> {
    let mut command = Command::new("chromedriver");
    command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut process =
        command.spawn().context("there is no chromedriver: apt-get install chromium chromium-driver")?;
    let mut lines = BufReader::new(process.stdout.take().context("its output")?).lines();
    while let Some(line) = lines.next_line().await? {
        let port =
            line.split_once("started successfully on port ").map(|(_, port)| port.trim_end_matches('.'));
        if let Some(port) = port {
            return Ok((process, port.parse()?));
        }
    }
    bail!("chromedriver ended before it had started")
}

/// Returns the source of axe.
fn axe() -> Result<String> {
    let file = Path::new(ROOT).join("target/browser/node_modules/axe-core/axe.min.js");
    let how = "there is no axe: npm install --prefix target/browser axe-core";
    std::fs::read_to_string(&file).context(how)
}
