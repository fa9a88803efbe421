//! Routing: how a method and a path lead to the guards and the route that an app declared.
//!
//! The floor below everything else: it has no dependencies, so the SDK links it into every
//! component, and host and guest read a path in the same way. Modules in the order in which to read
//! them:
//!
//! - `path` reads the path of a request once, into segments and one normal form.
//! - `pattern` reads the pattern of a route or a guard.
//! - `room_class` is the name of a kind of room.
//! - `manifest` has the routes, guards and pages that an app declares.
//! - `rules` lists what is refused when an app is loaded, and what to write instead.
//! - `router` finds guards and route of a request.
//!
//! ```
//! use tidegate_routing::{Wants, Exports, RouteMatch, Manifest, Path, Route, Router, Target};
//!
//! let routes = vec![Route::new("GET", "/users/{id}", Target::Http)];
//! let router = Router::new(&Manifest { routes, ..Manifest::default() }, Exports::ALL).unwrap();
//! let found = router.find("GET", Wants::Other, &Path::parse("/users/7").unwrap());
//! let params = vec![("id".to_owned(), "7".to_owned())];
//! assert_eq!(found, RouteMatch::Route { index: 0, target: Target::Http, params });
//! ```

mod manifest;
mod path;
mod pattern;
mod room_class;
mod router;
mod rules;
mod violation;

pub use manifest::{Exports, FirstValue, Guard, LoaderInfo, Manifest, Page, Route, Target, Wants};
pub use path::{BadPath, Path, TARGET_BYTES_MAX, decode};
pub use pattern::{BadPattern, GuardPattern, Pattern, Segment};
pub use room_class::{BadRoomClass, ROOM_CLASS_BYTES_MAX, RoomClass};
pub use router::{AMBIGUOUS, RouteMatch, Router};
pub use violation::{Rule, Subject, Violation};
