//! A version of the app, as rooms see it.

use crate::app::App;
use std::sync::Arc;
use tidegate_routing::Manifest;

/// One version of the app: its code and its manifest.
pub(crate) struct Version {
    pub(crate) app: Arc<dyn App>,
    pub(crate) manifest: Manifest,
}

impl Version {
    /// Returns true if it has rooms of this class.
    pub(crate) fn has_class(&self, class: &str) -> bool {
        self.manifest
            .routes
            .iter()
            .any(|route| route.room.as_deref() == Some(class))
    }
}
