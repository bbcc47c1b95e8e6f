//! Prints the public items that rustdoc's JSON has, a line for each.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let json = std::env::args_os().nth(1).ok_or("which file of rustdoc's?")?;
    let face = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    print!("{face}");
    Ok(())
}
