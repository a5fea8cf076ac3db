//! Linking: relative relocations are packed (`DT_RELR`). Unpacked they are 0.4 MB that the dynamic linker reads, and makes
//! resident, at every start (PERFORMANCE.md, "Memory"). A linker that does not know the option says so and goes on.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
