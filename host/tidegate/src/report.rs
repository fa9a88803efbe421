//! The reports of a server: one screen at the start, one line at the end.

use crate::{
    config::Config,
    key::KEYS,
    logging::{self, LogFormat},
    quantity::Time,
};
use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};
use tidegate_edge::{HostPattern, Hosts, Origins};
use tidegate_hub::Hub;
use tidegate_routing::{Manifest, Page, Route};
use tidegate_wasm::{CodeOrigin, Compilation, Dir};

/// Number of routes in the start report; `tidegate routes` lists all.
const ROUTES_SHOWN: usize = 20;

/// The start report. Its `Display` is the screen.
pub(crate) struct Report<'a> {
    /// At least one.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) app: &'a Path,
    pub(crate) compiled: Compilation,
    pub(crate) manifest: Option<&'a Manifest>,
    pub(crate) config: &'a Config,
}

impl Report<'_> {
    /// Writes it to stderr.
    pub(crate) fn print(&self, format: LogFormat) {
        match format {
            LogFormat::Text => logging::print(&self.to_string()),
            LogFormat::Json => {
                let routes = self
                    .manifest
                    .map_or(0, |manifest| manifest.routes.len() + manifest.pages.len());
                tracing::info!(url = url(self.addresses[0]), app = %self.app.display(), routes, "serving");
            }
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "tidegate {}: {}\n",
            env!("CARGO_PKG_VERSION"),
            url(self.addresses[0])
        )?;
        if self.addresses[0].ip().is_unspecified() {
            section(
                f,
                "address",
                [format!(
                    "all addresses of this machine, port {}",
                    self.addresses[0].port()
                )],
            )?;
        } else if self.addresses.len() > 1 {
            section(
                f,
                "address",
                self.addresses.iter().map(|address| url(*address)),
            )?;
        }
        section(
            f,
            "app",
            [format!("{}, {}", name(self.app), compiled(&self.compiled))],
        )?;
        section(f, "routes", shown_routes(self.manifest, self.app))?;
        section(
            f,
            "guards",
            self.manifest
                .iter()
                .flat_map(|manifest| &manifest.guards)
                .map(|guard| guard.pattern.clone()),
        )?;
        let has_rooms = self.manifest.is_some_and(Manifest::has_rooms);
        section(
            f,
            "data",
            has_rooms.then(|| format!("{} (rooms)", self.config.data.display())),
        )?;
        section(
            f,
            "assets",
            self.config
                .edge
                .assets
                .iter()
                .map(|path| format!("{} (precede the routes)", path.display())),
        )?;
        section(f, "hosts", hosts(&self.config.edge.hosts))?;
        section(
            f,
            "trusted",
            self.config
                .edge
                .trusted
                .iter()
                .map(|network| format!("{network} (X-Forwarded-* and Forwarded are trusted)")),
        )?;
        section(
            f,
            "origins",
            origins(&self.config.edge.origins, self.config.edge.require_origin),
        )?;
        section(f, "grants", grants(self.config))?;
        section(f, "limits", changed_limits(self.config))?;
        let drain = Time(self.config.edge.drain_within);
        writeln!(
            f,
            "\nCtrl-C stops the server: open requests have {drain} to end; a second Ctrl-C stops at once.\n"
        )
    }
}

/// Writes lines, the first of them after a heading; writes nothing if there are no lines.
fn section(
    f: &mut fmt::Formatter<'_>,
    word: &str,
    lines: impl IntoIterator<Item = String>,
) -> fmt::Result {
    let words = [word].into_iter().chain(std::iter::repeat(""));
    words
        .zip(lines)
        .try_for_each(|(word, line)| writeln!(f, "  {word:<9}{line}"))
}

/// Returns the URL for a browser on this machine.
pub(crate) fn url(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            format!("http://127.0.0.1:{}", address.port())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            format!("http://[::1]:{}", address.port())
        }
        _ => format!("http://{address}"),
    }
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .display()
        .to_string()
}

fn compiled(compiled: &Compilation) -> String {
    let took = match compiled.took {
        took if took < Duration::from_secs(1) => format!("{} ms", took.as_millis()),
        took => format!("{:.1} s", took.as_secs_f64()),
    };
    format!("{} in {took}", origin(compiled.origin))
}

/// Describes the origin of the machine code.
pub(crate) fn origin(origin: CodeOrigin) -> &'static str {
    match origin {
        CodeOrigin::Compiler => "compiled",
        CodeOrigin::Cache => "from the cache",
        CodeOrigin::Ahead => "compiled ahead of time, read",
    }
}

fn shown_routes(manifest: Option<&Manifest>, app: &Path) -> Vec<String> {
    let mut lines = route_lines(manifest);
    if lines.len() > ROUTES_SHOWN {
        let more = lines.len() - ROUTES_SHOWN;
        lines.truncate(ROUTES_SHOWN);
        lines.push(format!(
            "… and {more} more: tidegate routes {}",
            app.display()
        ));
    }
    lines
}

/// Returns one aligned line for each route and page: methods, pattern and target.
pub(crate) fn route_lines(manifest: Option<&Manifest>) -> Vec<String> {
    let Some(manifest) = manifest else {
        return vec!["any  every path  stream (wasi:http, without a manifest)".into()];
    };
    let methods = |route: &Route| {
        if route.methods.is_empty() {
            "any".into()
        } else {
            route.methods.join(",")
        }
    };
    let routes: Vec<Route> = manifest
        .routes
        .iter()
        .cloned()
        .chain(manifest.pages.iter().map(Page::route))
        .collect();
    let width = |of: &dyn Fn(&Route) -> usize| routes.iter().map(of).max().unwrap_or_default();
    let methods_width = width(&|route| methods(route).chars().count());
    let pattern_width = width(&|route| route.pattern.chars().count());
    let line = |route: &Route| {
        let (methods, pattern, target) = (methods(route), &route.pattern, route.target);
        let room = route
            .room
            .as_ref()
            .map_or_else(String::new, |class| format!(" of room {class}"));
        format!("{methods:<methods_width$}  {pattern:<pattern_width$}  {target}{room}")
    };
    routes.iter().map(line).collect()
}

fn hosts(hosts: &Hosts) -> Option<String> {
    match hosts {
        Hosts::Any => None,
        Hosts::Local => Some("localhost, *.localhost and addresses".into()),
        Hosts::List(list) => Some(
            list.iter()
                .map(HostPattern::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        ),
    }
}

fn origins(origins: &Origins, require_origin: bool) -> Option<String> {
    let allowed = match origins {
        Origins::SameOrigin if !require_origin => return None,
        Origins::SameOrigin => "same-origin".to_owned(),
        Origins::List(list) => list.join(", "),
        Origins::Any => "any: every web page may open a WebSocket here".to_owned(),
    };
    Some(if require_origin {
        format!("{allowed}; clients without an Origin header are refused")
    } else {
        allowed
    })
}

fn grants(config: &Config) -> Vec<String> {
    let app = &config.app;
    let mode = |dir: &Dir| {
        if dir.writable {
            "read and write"
        } else {
            "read only"
        }
    };
    let env = app.env.iter().map(|(name, _)| format!("variable {name}"));
    let dirs = app.dirs.iter().map(|dir| {
        format!(
            "directory {} as {}, {}",
            dir.host.display(),
            dir.guest,
            mode(dir)
        )
    });
    env.chain(dirs)
        .chain(
            app.outbound
                .grants
                .iter()
                .map(|grant| format!("requests to {grant}")),
        )
        .collect()
}

fn changed_limits(config: &Config) -> Vec<String> {
    let default = Config::default();
    let bounds = KEYS
        .iter()
        .filter(|key| key.section == "limits" || key.section == "app");
    let values =
        bounds.filter_map(|key| Some((key.name, key.quantity(config)?, key.quantity(&default)?)));
    values
        .filter(|(_, now, default)| now != default)
        .map(|(name, now, default)| format!("{name} = {now} (default {default})"))
        .collect()
}

/// Defines `log_counters`. Fields of a log event have to be literals.
macro_rules! define_log_counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        fn log_counters(hub: &Hub) {
            let counters = hub.counters();
            tracing::info!($($name = counters.$name.get(),)* log_dropped = logging::dropped(), "stopped");
        }
    };
}

tidegate_hub::for_each_counter!(define_log_counters);

/// Writes the counters since the start to stderr.
pub(crate) fn report_stop(hub: &Hub, format: LogFormat) {
    match format {
        LogFormat::Text => {
            let pairs =
                hub.counters()
                    .values()
                    .iter()
                    .fold(String::new(), |mut line, (name, count)| {
                        _ = write!(line, " {name}={count}");
                        line
                    });
            logging::print(&format!(
                "stopped:{pairs} log_dropped={}\n",
                logging::dropped()
            ));
        }
        LogFormat::Json => log_counters(hub),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_routing::{Guard, Target};

    fn screen(routes: usize, config: &Config) -> String {
        let route = |number: usize| {
            Route::new(
                if number == 0 { "" } else { "GET" },
                &format!("/{number}"),
                Target::Http,
            )
        };
        let manifest = Manifest {
            routes: (0..routes).map(route).collect(),
            guards: vec![Guard {
                pattern: "/*".into(),
            }],
            pages: vec![],
        };
        let report = Report {
            addresses: vec!["127.0.0.1:4000".parse().unwrap()],
            app: Path::new("apps/lobby.wasm"),
            compiled: Compilation {
                origin: CodeOrigin::Compiler,
                took: Duration::from_millis(1234),
            },
            manifest: Some(&manifest),
            config,
        };
        report.to_string()
    }

    #[test]
    fn the_start_report_lists_routes_grants_and_limits() {
        let mut config = Config::default();
        config.limits.message_bytes_max = 4 << 20;
        config.grant_env(("TOKEN".into(), "secret".into()));
        let expected = format!(
            "\
tidegate {}: http://127.0.0.1:4000

  app      lobby.wasm, compiled in 1.2 s
  routes   any  /0  http
           GET  /1  http
  guards   /*
  grants   variable TOKEN
  limits   message_bytes_max = 4 MiB (default 1 MiB)

Ctrl-C stops the server: open requests have 10s to end; a second Ctrl-C stops at once.

",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(screen(2, &config), expected);
    }

    #[test]
    fn the_start_report_cuts_a_long_list_of_routes() {
        let screen = screen(23, &Config::default());
        assert!(
            screen.contains(
                "GET  /19  http\n           … and 3 more: tidegate routes apps/lobby.wasm\n"
            ),
            "{screen}"
        );
        assert!(screen.lines().count() < 40);
    }

    #[test]
    fn the_url_works_in_a_browser_on_this_machine() {
        let cases = [
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("[::1]:80", "http://[::1]:80"),
            ("10.0.0.7:8080", "http://10.0.0.7:8080"),
        ];
        for (address, expected) in cases {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_counters_have_stable_names() {
        let hub = Hub::new(Default::default(), Default::default(), 1);
        hub.counters().deliveries.add(6);
        let names: Vec<_> = hub
            .counters()
            .values()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let promised = [
            "requests",
            "connections",
            "feeds",
            "guest_calls",
            "faults",
            "publications",
            "deliveries",
            "auto_responses",
            "wakes",
            "commits",
            "late_heads",
            "stalled_uploads",
            "stalled_readers",
            "control_floods",
            "output_dropped",
            "refused_sockets",
            "refused_address",
            "refused_descriptors",
            "refused_memory",
            "refused_websockets",
            "refused_feeds",
        ];
        assert_eq!(names, promised);
        assert_eq!(hub.counters().values()[6].1, 6);
    }
}
