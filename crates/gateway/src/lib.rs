//! One model, many providers: which one makes a picture, what is asked of it, and what it costs.
//!
//! A [`catalogue::Catalogue`] says which models there are and which deployments serve them. For each deployment a
//! [`plan::Plan`] is worked out before anybody is called: the size, the calls that make `n` pictures, the format that is asked for,
//! what is dropped or changed on the way, and the price. So the router filters by it, a dry run is answered from it, and the
//! calls follow it. A [`provider::Provider`] turns one call of it into its own protocol and the answer back into an
//! [`provider::Outcome`], or into a [`failure::Failure`] that says what the router may do next.
//!
//! Knows no route of ours, no dialect of our callers, and no tensor: the local engine is a provider like the others, behind the
//! queue. Whoever asks is an owner's id here, for rows and limits.

pub mod answer;
pub mod caller;
pub mod catalogue;
mod changes;
pub mod emulate;
pub mod failure;
mod gateway;
pub mod plan;
pub mod price;
pub mod provider;
pub mod providers;
mod routing;
pub mod source;

pub use gateway::{Gateway, House, Open, fresh_id};
