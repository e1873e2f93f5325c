//! Compiles the contract with protox, so that no `protoc` needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["hawser/v1/node.proto"], ["proto"])?;
    // Each side links only its own half, because the plugin's size and start time have budgets.
    let mut build = tonic_prost_build::configure();
    // What the daemon shows to humans and scripts as it is, also as JSON.
    for message in [
        "Totals",
        "Decision",
        "Call",
        "Obstacle",
        "RefusedAction",
        "Bandwidth",
        "SettingNotice",
        "Places",
    ] {
        let attribute = "#[cfg_attr(feature = \"serde\", derive(serde::Serialize), serde(rename_all = \"camelCase\"))]";
        build = build.type_attribute(format!(".hawser.v1.{message}"), attribute);
    }
    build
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
