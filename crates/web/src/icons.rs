//! Small pictures beside words: paths of 24 units on lines of 1.75, drawn for these pages.

use maud::{Markup, html};

/// Three sliders.
pub(crate) const SETTINGS: &str = "M4 7h10M18 7h2M4 17h2M10 17h10M16 4.5v5M8 14.5v5";
/// A die.
pub(crate) const DICE: &str = "M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01M15 9h.01M9 15h.01";
/// A closed lock.
pub(crate) const LOCK: &str = "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3";
/// A cross.
pub(crate) const CROSS: &str = "M6 6l12 12M18 6L6 18";
/// An arrow onto a line.
pub(crate) const DOWNLOAD: &str = "M12 4v11M7 10.5l5 5 5-5M5 20h14";
/// An arrow out of a box.
pub(crate) const REUSE: &str = "M20 12a8 8 0 1 1-2.3-5.6M20 4v4h-4";
/// Two branches.
pub(crate) const VARY: &str = "M4 12h5l3-6h8M9 12l3 6h8M17 3l3 3-3 3M17 15l3 3-3 3";
/// A chain's link.
pub(crate) const LINK: &str = "M10 14l4-4M8.5 11L6 13.5a3.2 3.2 0 0 0 4.5 4.5L13 15.5M15.500 13L18 10.500A3.200 3.200 0 0 0 13.500 6L11 8.500";
/// A star.
pub(crate) const STAR: &str =
    "M12 4l2.4 5 5.6.7-4.100 3.800 1.100 5.500-5-2.700-5 2.700 1.100-5.500L4 9.700 9.600 9z";
/// A bin.
pub(crate) const BIN: &str =
    "M5 7h14M9.500 7V4.500h5V7M7 7l.8 12.500h8.400L17 7M10.500 10.500v6M13.500 10.500v6";
/// Two sheets.
pub(crate) const COPY: &str = "M9 9h11v11H9zM5 15H4V4h11v1";
/// A picture with a mountain.
pub(crate) const PICTURE: &str = "M4 5h16v14H4zM4 16l4.500-4.500 4 4L15 13l5 4.500M15.500 9h.01";
/// A plus.
pub(crate) const PLUS: &str = "M12 5v14M5 12h14";

/// A picture that says nothing to whoever hears the page.
pub(crate) fn icon(path: &str) -> Markup {
    html! {
        svg.icon viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.75"
            stroke-linecap="round" stroke-linejoin="round" { path d=(path) {} }
    }
}

/// The mark: a drum with slits, seen from above.
pub(crate) fn mark() -> Markup {
    html! {
        svg.icon viewBox="0 0 24 24" width="26" height="26" aria-hidden="true" fill="none" stroke="currentColor" stroke-linecap="round" {
            circle cx="12" cy="12" r="9" stroke-width="3.5" stroke-dasharray="4.2 2.869" stroke-linecap="butt" {}
            circle cx="12" cy="12" r="2.2" fill="currentColor" stroke="none" {}
        }
    }
}
