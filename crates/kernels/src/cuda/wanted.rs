//! What a machine must have before its GPUs are used: libraries, a driver and GPUs that are new enough. Each is asked for by the few
//! calls that older ones have too, and what is wanting is told in words.

/// CUDA 13.0, as drivers and libraries count: 1000 for a version and 10 for what is behind its dot.
const CUDA: i32 = 13_000;

/// Compute capability of the oldest generation that there are kernels for.
pub(crate) const OLDEST: (i32, i32) = (8, 0);

/// Libraries that are opened, by their files' names and by those that users know.
const LIBRARIES: &[(&str, &str)] = &[
    ("cuda", "NVIDIA's driver"),
    ("cublas", "cuBLAS of CUDA 13"),
    ("cublasLt", "cuBLASLt of CUDA 13"),
];

/// The names of library `name`'s files, of which one must be there, the usual one first; cudarc looks for them and for others.
fn files(name: &str) -> [String; 2] {
    match (name, cfg!(windows)) {
        ("cuda", true) => ["nvcuda.dll", "cuda.dll"].map(String::from),
        (_, true) => [format!("{name}64_13.dll"), format!("{name}.dll")],
        ("cuda", false) => ["libcuda.so.1", "libcuda.so"].map(String::from),
        (_, false) => [format!("lib{name}.so.13"), format!("lib{name}.so")],
    }
}

/// What is missing where `open` opens a file or says why it cannot; nothing where all is there.
pub(crate) fn missing(open: impl Fn(&str) -> Result<(), String>) -> Option<String> {
    let missing = LIBRARIES.iter().filter_map(|(name, said)| {
        let [usual, other] = files(name);
        let why = open(&usual).err()?;
        open(&other).is_err().then(|| format!("{said} cannot be opened ({why})"))
    });
    let missing: Vec<_> = missing.collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// Why a driver that knows CUDA up to `version` is of no use, if it is not.
pub(crate) fn of_driver(version: i32) -> Option<String> {
    (version < CUDA).then(|| {
        format!(
            "NVIDIA's driver knows CUDA up to {}; install driver 580 or later, which knows 13.0",
            dotted(version)
        )
    })
}

/// The same of cuBLASLt of `version`, which counts 10000 for CUDA's.
pub(crate) fn of_library(version: usize) -> Option<String> {
    (version < 10 * CUDA as usize).then(|| {
        format!(
            "cuBLASLt that the system finds first is {}.{}; put CUDA 13's before it in LD_LIBRARY_PATH",
            version / 10_000,
            version / 100 % 100
        )
    })
}

/// The same of the GPU `name`.
pub(crate) fn of_gpu(name: &str, capability: (i32, i32)) -> Option<String> {
    let ((major, minor), (wanted, least)) = (capability, OLDEST);
    (capability < OLDEST).then(|| {
        format!("{name} has compute capability {major}.{minor}, and there are kernels from {wanted}.{least} (Ampere) on")
    })
}

fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn what_is_missing_is_named_with_the_systems_reason() {
        let there = |files: &'static [&str]| {
            move |file: &str| match files.contains(&file) {
                true => Ok(()),
                false => Err(format!("{file}: no such file")),
            }
        };
        assert_eq!(missing(there(&["libcuda.so.1", "libcublas.so.13", "libcublasLt.so"])), None);
        assert_eq!(
            missing(there(&["libcublasLt.so.13"])).unwrap(),
            "NVIDIA's driver cannot be opened (libcuda.so.1: no such file); cuBLAS of CUDA 13 cannot be opened (libcublas.so.13: no such file)"
        );
    }

    #[test]
    fn what_is_too_old_is_told_with_what_is_wanted() {
        assert_eq!((of_driver(13_000), of_driver(13_020)), (None, None));
        assert!(of_driver(12_040).unwrap().contains("CUDA up to 12.4; install driver 580"));
        assert_eq!(of_library(130_100), None);
        assert!(of_library(120_804).unwrap().contains("is 12.8; put CUDA 13's"));
        assert_eq!((of_gpu("A", (8, 0)), of_gpu("B", (12, 0))), (None, None));
        assert!(
            of_gpu("GTX 1080", (6, 1)).unwrap().starts_with("GTX 1080 has compute capability 6.1")
        );
    }
}
