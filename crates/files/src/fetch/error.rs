//! Why nothing was fetched, for whoever sent the address: what they sent, never what is inside this network.

/// Why nothing came, in words for whoever sent the address.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address.
    #[error("`{address}` is no address that can be fetched: {problem}")]
    Address {
        /// The beginning of what was sent.
        address: String,
        /// What is wrong, and what to send.
        problem: &'static str,
    },
    /// An address that must not be fetched.
    #[error(
        "{host} is an address of a private network or of no network; this server fetches public ones only"
    )]
    Forbidden {
        /// As it was sent.
        host: String,
    },
    /// It leads from one address to the next.
    #[error("{host} redirects more than {redirects_max} times; send the address where the file is")]
    Redirects {
        /// Where it began.
        host: String,
        /// The limit.
        redirects_max: usize,
    },
    /// The other side refused.
    #[error("{host} answered {status}")]
    Status {
        /// Who.
        host: String,
        /// With what.
        status: u16,
    },
    /// More than is taken.
    #[error("the file is larger than {}, the most that is taken", size(*bytes_max))]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// It took too long.
    #[error("{host} did not answer in whole within {}", duration(*timeout_ms))]
    TimedOut {
        /// Who.
        host: String,
        /// The limit.
        timeout_ms: u64,
    },
    /// No connection, or one that broke.
    #[error("{host} could not be reached, or the connection broke")]
    Connection {
        /// Who.
        host: String,
    },
    /// A header of a post that HTTP cannot carry.
    #[error("the header `{0}` cannot be sent; its name or value has characters that HTTP forbids")]
    Header(String),
    /// This machine's disk. The cause names paths, so only `source` has it.
    #[error("the server could not keep the file")]
    Disk(#[from] std::io::Error),
}

impl FetchError {
    /// Whether the answer was larger than the limit.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{bytes} bytes"),
        mebibytes => format!("{mebibytes} MiB"),
    }
}

fn duration(ms: u64) -> String {
    match ms % 1000 {
        0 => format!("{} seconds", ms / 1000),
        _ => format!("{ms} ms"),
    }
}
