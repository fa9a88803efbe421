//! Events that must happen do happen: `on-close`, presence leaves and alarms under overload.
