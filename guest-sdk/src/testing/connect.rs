//! A client's request for a WebSocket, a feed or a stream.

/// Options of a connection. A path alone converts to it.
///
/// # Examples
///
/// ```
/// use tidegate::{prelude::*, testing::{self, Connect}};
///
/// struct Versions;
/// impl Socket for Versions {
///     async fn upgrade(&self, upgrade: &Upgrade) -> Result<Accept> {
///         Ok(Accept::new().protocol(upgrade.pick(&["v2", "v1"])))
///     }
/// }
///
/// let mut server = testing::serve(App::new().socket("/", Versions));
/// let ann = server.connect(Connect::to("/").protocol("v0").protocol("v1"));
/// assert_eq!(server.protocol(ann), Some("v1"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Connect {
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) protocols: Vec<String>,
}

impl Connect {
    /// Connects to this path, which may have a query.
    pub fn to(path: &str) -> Connect {
        Connect {
            path: path.to_owned(),
            ..Connect::default()
        }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Connect {
        self.headers
            .push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// Offers this subprotocol, after those offered before.
    pub fn protocol(mut self, protocol: &str) -> Connect {
        self.protocols.push(protocol.to_owned());
        self
    }
}

impl From<&str> for Connect {
    fn from(path: &str) -> Connect {
        Connect::to(path)
    }
}

impl From<&String> for Connect {
    fn from(path: &String) -> Connect {
        Connect::to(path)
    }
}
