//! `b24 emulator`: the built-in portal for other clients.

use super::args::{Emulator as EmulatorCommand, EmulatorServe, Global};
use super::{Stop, printed};
use crate::emulator::{self, Bucket, Emulator, Fault, Limits, Options};
use crate::error::Failure;
use crate::host::Host;
use crate::output::{self, ErrorFormat};
use crate::settings;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn run(command: &EmulatorCommand, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    match command {
        EmulatorCommand::Serve(serve) => self::serve(serve, global, host, format),
        EmulatorCommand::Log { data } => {
            for change in emulator::changes(&folder(data.as_ref(), global, host)?)? {
                let line = serde_json::to_string(&change).unwrap_or_default();
                printed(output::text(host, &line))?;
            }
            Ok(())
        }
    }
}

fn folder(data: Option<&PathBuf>, global: &Global, host: &Host) -> Result<PathBuf, Stop> {
    match data {
        Some(path) => Ok(host.cwd.join(path)),
        None => {
            let settings = settings::resolve(&global.options(), host)?;
            settings.state.prepare()?;
            Ok(settings.state.place("emulator"))
        }
    }
}

/// Serves until a signal ends the process. The address is printed; the
/// webhook, which is a secret, stands in a file of mode 0600.
fn serve(serve: &EmulatorServe, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let data = folder(serve.data.as_ref(), global, host)?;
    let faults = serve.fault.iter().map(|rule| rule.parse::<Fault>()).collect::<Result<Vec<Fault>, _>>();
    let faults = faults.map_err(|error| Failure::from(error).hint("b24 help faults lists the kinds"))?;
    let options = Options {
        data: data.clone(),
        port: serve.port,
        limits: limits(serve),
        clock: Arc::clone(&host.clock),
        random: Arc::clone(&host.random),
        announce: true,
    };
    crate::interrupt::watch();
    let emulator = Emulator::start(options)?;
    faults.into_iter().for_each(|fault| emulator.add_fault(fault));
    let ready = json!({
        "schema": "b24.emulator/1",
        "address": emulator.origin(),
        "data": data.display().to_string(),
        "webhook_url_file": data.join("webhook-url").display().to_string(),
        "oauth_file": data.join("oauth.json").display().to_string(),
    });
    printed(output::value(host, &ready))?;
    output::note(host, "notice", "serving", "stop with Ctrl-C", format);
    emulator.wait();
    Ok(())
}

fn limits(serve: &EmulatorServe) -> Limits {
    let mut limits = if serve.limits { Limits::cloud() } else { Limits::none() };
    if let Some(Bucket { rate_per_s, threshold }) = &mut limits.bucket {
        *rate_per_s = serve.rate.unwrap_or(*rate_per_s);
        *threshold = serve.threshold.unwrap_or(*threshold);
    }
    limits.token_ttl_s = serve.token_ttl;
    limits.latency = Duration::from_millis(serve.latency);
    limits
}
