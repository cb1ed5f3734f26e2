//! `cairn bench`.

use cairn_codec::tensor::Kernel;
use cairn_format::Element;
use serde::Serialize;

use crate::args::BenchArgs;
use crate::failure::Failure;
use crate::measure::{Rate, cores, processor, weights};
use crate::output::{print, print_json, rows};

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// Of so many rounds the best counts.
const ROUNDS: usize = 5;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    message_type: &'static str,
    schema_version: u32,
    /// Plain bytes of each kind of numbers.
    bytes: usize,
    /// Vectors that the processor has.
    kernel: &'static str,
    threads: usize,
    /// `null` where there is none.
    graphics: Option<Adapter>,
    /// Why there is none, or it is not used.
    graphics_reason: Option<String>,
    numbers: Vec<Numbers>,
    /// Which of them a mount with this `gpu=` codes on.
    used: &'static str,
}

/// A graphics processor.
#[derive(Clone, Debug, Serialize)]
struct Adapter {
    name: String,
    driver: String,
    /// Whether it is one, not a driver that computes on the processor.
    hardware: bool,
    /// Bytes a second that are copied to it, and from it; `null` until that was measured.
    copied_to: Option<f64>,
    copied_from: Option<f64>,
}

/// What was measured with one kind of numbers, in plain bytes a second.
#[derive(Debug, Serialize)]
struct Numbers {
    name: &'static str,
    /// What they are stored in, of what they are.
    share: f64,
    one_thread: Rate,
    all_threads: Rate,
    /// All that coding on the graphics processor takes.
    graphics: Option<Rate>,
    /// The kernels alone.
    kernels: Option<Rate>,
}

/// Measures.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let mut graphics = Graphics::open(args);
    let mut document = Document {
        message_type: "bench",
        schema_version: SCHEMA,
        bytes: usize::from(args.mib) << 20,
        kernel: Kernel::best().name(),
        threads: cores(),
        graphics: None,
        graphics_reason: graphics.reason.clone(),
        numbers: Vec::new(),
        used: "processor",
    };
    for (name, element) in [("bf16", Element::Bfloat), ("fp32", Element::Single)] {
        document.numbers.push(measure(&mut graphics, name, element, document.bytes)?);
    }
    document.graphics = graphics.adapter.take();
    if let (Some(adapter), None) = (&document.graphics, &document.graphics_reason) {
        let faster =
            document.numbers.iter().all(|n| n.graphics.is_some_and(|g| g.encode > n.all_threads.encode));
        match faster || args.gpu == crate::graphics::Wanted::On {
            true => document.used = "graphics",
            false => document.graphics_reason = Some(format!("{} is slower", adapter.name)),
        }
    }
    if args.json { print_json(&document) } else { print(&table(&document)) }
}

fn measure(
    graphics: &mut Graphics,
    name: &'static str,
    element: Element,
    bytes: usize,
) -> Result<Numbers, Failure> {
    let plain = weights(element, bytes);
    let (one_thread, coded) = processor(Kernel::best(), 1, ROUNDS, &plain, element);
    let (all_threads, _) = processor(Kernel::best(), cores(), ROUNDS, &plain, element);
    let stored: usize = coded.iter().flatten().map(Vec::len).sum();
    let (graphics, kernels) = graphics.measure(&plain, element, &coded)?;
    let share = stored as f64 / plain.len() as f64;
    Ok(Numbers { name, share, one_thread, all_threads, graphics, kernels })
}

/// What there is of a graphics processor.
struct Graphics {
    #[cfg(feature = "gpu")]
    device: Option<cairn_gpu::Device>,
    adapter: Option<Adapter>,
    reason: Option<String>,
}

#[cfg(not(feature = "gpu"))]
impl Graphics {
    fn open(_: &BenchArgs) -> Graphics {
        Graphics { adapter: None, reason: Some(crate::graphics::WITHOUT.to_string()) }
    }

    fn measure(
        &mut self,
        _: &[u8],
        _: Element,
        _: &[Option<Vec<u8>>],
    ) -> Result<(Option<Rate>, Option<Rate>), Failure> {
        Ok((None, None))
    }
}

#[cfg(feature = "gpu")]
impl Graphics {
    fn open(args: &BenchArgs) -> Graphics {
        match crate::graphics::open(args.gpu) {
            Err(reason) => Graphics { device: None, adapter: None, reason: Some(reason) },
            Ok(device) => {
                let adapter = Adapter {
                    name: device.name().to_string(),
                    driver: device.driver().to_string(),
                    hardware: device.is_hardware(),
                    copied_to: None,
                    copied_from: None,
                };
                Graphics { device: Some(device), adapter: Some(adapter), reason: None }
            }
        }
    }

    fn measure(
        &mut self,
        plain: &[u8],
        element: Element,
        coded: &[Option<Vec<u8>>],
    ) -> Result<(Option<Rate>, Option<Rate>), Failure> {
        use crate::measure::{CHUNK, RUN};
        use cairn_gpu::Run;
        use cairn_gpu::measure::MeasureError;

        let Some(device) = &mut self.device else { return Ok((None, None)) };
        let run = |plain| Run { plain, element, chunk: CHUNK, base: None };
        let runs: Vec<Run<'_>> = plain.chunks(RUN).map(run).collect();
        match device.measure(&runs, coded, ROUNDS) {
            Ok(measured) => {
                if let Some(adapter) = &mut self.adapter {
                    adapter.copied_to = Some(measured.copied_to);
                    adapter.copied_from = Some(measured.copied_from);
                }
                let rate = |rate: cairn_gpu::measure::Rate| Rate { encode: rate.encode, decode: rate.decode };
                Ok((Some(rate(measured.host)), measured.kernels.map(rate)))
            }
            Err(MeasureError::Lost(lost)) => {
                (self.device, self.reason) = (None, Some(lost.to_string()));
                Ok((None, None))
            }
            Err(error @ MeasureError::Differs) => Err(Failure::new(format!(
                "{error}: please report it, with the adapter and the driver ({}, {})",
                device.name(),
                device.driver()
            ))),
        }
    }
}

fn table(document: &Document) -> String {
    let mega = |rate: f64| format!("{:.0} MB/s", rate / 1e6);
    let line = |rate: Rate| format!("{:>12} coded {:>12} decoded", mega(rate.encode), mega(rate.decode));
    let mut lines = vec![
        ("codec", format!("runs of made-up weights, {} MiB of each kind", document.bytes >> 20)),
        ("processor", format!("{}, {} threads", document.kernel, document.threads)),
    ];
    let reason = document.graphics_reason.as_deref();
    match &document.graphics {
        None => lines.push(("graphics", format!("none: {}", reason.unwrap_or_default()))),
        Some(adapter) => {
            let software = if adapter.hardware { "" } else { "; it computes on the processor" };
            lines.push(("graphics", format!("{} ({}){software}", adapter.name, adapter.driver)));
            if let (Some(to), Some(from)) = (adapter.copied_to, adapter.copied_from) {
                lines.push(("copies", format!("{} to it, {} from it", mega(to), mega(from))));
            }
        }
    }
    for numbers in &document.numbers {
        lines.push((numbers.name, format!("{:.2}% of what they take plain", 100.0 * numbers.share)));
        lines.push(("  one thread", line(numbers.one_thread)));
        lines.push(("  all threads", line(numbers.all_threads)));
        lines.extend(numbers.graphics.map(|rate| ("  graphics", line(rate))));
        lines.extend(numbers.kernels.map(|rate| ("  its kernels", line(rate))));
    }
    let why = match (&document.graphics, reason) {
        (Some(_), Some(reason)) => format!("{}: {reason}", document.used),
        _ => document.used.to_string(),
    };
    lines.push(("used", why));
    rows(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let rate = Rate { encode: 1.5e9, decode: 2.0e9 };
        let adapter = Adapter {
            name: "a device".into(),
            driver: "its driver 1.0".into(),
            hardware: true,
            copied_to: Some(5e10),
            copied_from: Some(4e10),
        };
        Document {
            message_type: "bench",
            schema_version: SCHEMA,
            bytes: 1 << 20,
            kernel: "portable",
            threads: 2,
            graphics: Some(adapter),
            graphics_reason: None,
            numbers: vec![Numbers {
                name: "bf16",
                share: 0.665,
                one_thread: rate,
                all_threads: rate,
                graphics: Some(rate),
                kernels: None,
            }],
            used: "graphics",
        }
    }

    #[test]
    fn the_table_names_adapter_driver_kernel_and_who_is_used() {
        let text = table(&document());
        for part in ["portable, 2 threads", "a device (its driver 1.0)", "66.50%", "1500 MB/s coded", "used"]
        {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        let none = Document { graphics: None, graphics_reason: Some("no driver".into()), ..document() };
        assert!(table(&none).contains("none: no driver"), "{}", table(&none));
    }

    #[test]
    fn the_document_names_its_schema() {
        let json = serde_json::to_value(document()).expect("serializes");
        assert_eq!(
            (json["message_type"].as_str(), json["schema_version"].as_u64()),
            (Some("bench"), Some(1))
        );
        assert!(json["numbers"][0]["kernels"].is_null());
    }
}
