//! A device, and what is kept on it: kernels, buffers that grow, and memory that both sides see. All that is known of wgpu is here.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::plan;

/// Which device is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A graphics processor.
    #[default]
    Hardware,
    /// That, or a driver that computes on the processor: for tests.
    Any,
}

/// Why there is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no graphics processor can be used: {0}")]
pub struct NoDevice(String);

/// A device that can no longer be used: what was asked of it is to be done without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the graphics processor {adapter} is no longer used: {reason}")]
pub struct Lost {
    adapter: String,
    reason: String,
}

/// Kernels, by the files that they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Split,
    Count,
    Encode,
    Keep,
    Spread,
    Decode,
    Join,
}

impl Kernel {
    const ALL: [(Kernel, &str, &str); 7] = [
        (Kernel::Split, "split", include_str!("kernels/split.wgsl")),
        (Kernel::Count, "count", include_str!("kernels/count.wgsl")),
        (Kernel::Encode, "encode", include_str!("kernels/encode.wgsl")),
        (Kernel::Keep, "keep", include_str!("kernels/keep.wgsl")),
        (Kernel::Spread, "spread", include_str!("kernels/spread.wgsl")),
        (Kernel::Decode, "decode", include_str!("kernels/decode.wgsl")),
        (Kernel::Join, "join", include_str!("kernels/join.wgsl")),
    ];
}

/// What lies on the device, each in a buffer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Kinds,
    Blocks,
    Plain,
    Planes,
    Counts,
    Streams,
    Runs,
    Steps,
    Copies,
    Coded,
    Pieces,
    Stored,
    Tables,
    Status,
}

impl Slot {
    const COUNT: usize = Slot::Status as usize + 1;
}

/// A kernel, what it works on in the order of its bindings, and how many workgroups of it.
pub(crate) struct Dispatch<'d> {
    pub(crate) kernel: Kernel,
    pub(crate) slots: &'d [Slot],
    pub(crate) groups: (usize, usize),
}

/// Bytes that go to a buffer.
pub(crate) enum Bytes<'b> {
    /// Words.
    Words(&'b [u32]),
    /// Pieces, each of which begins at a word; so many bytes in all.
    Pieces(&'b [&'b [u8]], usize),
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Bytes::Words(words) => 4 * words.len(),
            Bytes::Pieces(_, len) => *len,
        }
    }
}

/// Bytes of plain data of a batch, unless the device's limits are lower.
const BATCH: usize = 32 << 20;
/// How long a batch may take before the device is taken for hung: lavapipe on a busy processor takes seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A device that computes.
pub struct Device {
    // Left where it is once the device hangs: to drop it is to wait for it.
    inner: Option<Inner>,
    name: String,
    driver: String,
    hardware: bool,
    timeout: Duration,
    batch: usize,
    repeats: usize,
    redone: usize,
    lost: Option<Lost>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipelines: Vec<wgpu::ComputePipeline>,
    buffers: [Option<wgpu::Buffer>; Slot::COUNT],
    up: Option<wgpu::Buffer>,
    down: Option<wgpu::Buffer>,
    /// The first thing that went wrong.
    trouble: Arc<Mutex<Option<String>>>,
    largest: u64,
}

/// What a future of wgpu's gives: on Vulkan they are ready when they are made.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn note(trouble: &Mutex<Option<String>>, what: String) {
    trouble.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
}

impl Device {
    /// The first that is like that. It takes a good part of a second, so do it once.
    pub fn open(choice: Choice) -> Result<Device, NoDevice> {
        // A driver may do anything; this process is somebody's filesystem.
        let opened = catch_unwind(|| Device::open_it(choice));
        opened.unwrap_or_else(|_| Err(NoDevice("its driver, or wgpu, panicked".to_string())))
    }

    fn open_it(choice: Choice) -> Result<Device, NoDevice> {
        let refused = |what: &str| NoDevice(what.to_string());
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN;
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        let adapters = now(instance.enumerate_adapters(wgpu::Backends::VULKAN)).unwrap_or_default();
        let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        let adapter = adapters.into_iter().min_by_key(rank);
        let adapter = adapter.ok_or_else(|| refused("Vulkan knows none (is a driver installed?)"))?;
        let hardware = rank(&adapter) < 4;
        let info = adapter.get_info();
        if !hardware && choice == Choice::Hardware {
            return Err(NoDevice(format!(
                "Vulkan knows only {}, which computes on the processor",
                info.name
            )));
        }
        let limits = adapter.limits();
        let largest = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        let descriptor = wgpu::DeviceDescriptor {
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let opened = now(adapter.request_device(&descriptor)).ok_or_else(|| refused("it never opens"))?;
        let (device, queue) = opened.map_err(|error| NoDevice(error.to_string()))?;
        let trouble = Arc::new(Mutex::new(None));
        let seen = trouble.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&seen, error.to_string())));
        let seen = trouble.clone();
        device.set_device_lost_callback(move |reason, message| {
            note(&seen, format!("it was lost ({reason:?}) {message}"));
        });
        let pipelines = Kernel::ALL.map(|(_, name, source)| pipeline(&device, name, source)).into();
        let inner = Inner {
            device,
            queue,
            pipelines,
            buffers: [const { None }; Slot::COUNT],
            up: None,
            down: None,
            trouble,
            largest,
        };
        // What is made of a batch is less than twice as long.
        let batch = BATCH.min(usize::try_from(largest / 2).unwrap_or(BATCH));
        let driver = format!("{} {}", info.driver, info.driver_info).trim().to_string();
        let (name, timeout) = (info.name, TIMEOUT);
        let mut opened = Device {
            inner: Some(inner),
            name,
            driver,
            hardware,
            timeout,
            batch,
            repeats: 1,
            redone: 0,
            lost: None,
        };
        let kinds = plan::kinds();
        let uploads = [(Slot::Kinds, Bytes::Words(&kinds))];
        opened.run(&uploads, &[], &[], &[]).map_err(|lost| NoDevice(lost.reason))?;
        Ok(opened)
    }

    /// What the adapter is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its driver is called.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Whether it is one: not a driver that computes on the processor.
    pub fn is_hardware(&self) -> bool {
        self.hardware
    }

    /// Plain bytes that are worth giving it at once.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// How long a batch may take before the device is taken for hung.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// How many runs, and blocks of runs, the processor did once more, or instead: what the device said is damaged, what took more room than
    /// was foreseen, and what was too large for a batch.
    pub fn redone(&self) -> usize {
        self.redone
    }

    pub(crate) fn redo(&mut self, more: usize) {
        self.redone += more;
    }

    /// How often kernels are run in each batch, to the same bytes: more than once to measure them.
    pub(crate) fn set_repeats(&mut self, repeats: usize) {
        self.repeats = repeats;
    }

    /// What loses the device, as one may be lost at any time: for tests of that.
    pub fn destroyer(&self) -> impl Fn() + Send + 'static {
        let device = self.inner.as_ref().map(|inner| inner.device.clone());
        move || device.iter().for_each(wgpu::Device::destroy)
    }

    /// Copies `uploads` to the device, has `made` hold so many bytes each at least, computes, and gives the first bytes of what `wanted` names.
    pub(crate) fn run(
        &mut self,
        uploads: &[(Slot, Bytes<'_>)],
        made: &[(Slot, usize)],
        dispatches: &[Dispatch<'_>],
        wanted: &[(Slot, usize)],
    ) -> Result<Vec<u8>, Lost> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let (timeout, repeats) = (self.timeout, self.repeats);
        let dispatches: Vec<_> = (0..repeats).flat_map(|_| dispatches).collect();
        let result = match &mut self.inner {
            // What wgpu makes of a device that is lost while it is waited for is a panic.
            Some(inner) => {
                let run = || inner.run(uploads, made, &dispatches, wanted, timeout);
                catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("wgpu panicked".to_string()))
            }
            None => Err("it is closed".to_string()),
        };
        result.map_err(|reason| {
            let lost = Lost { adapter: self.name.clone(), reason };
            self.lost = Some(lost.clone());
            // Never dropped: what hangs would be waited for.
            std::mem::forget(self.inner.take());
            lost
        })
    }
}

fn pipeline(device: &wgpu::Device, name: &str, source: &str) -> wgpu::ComputePipeline {
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(name),
        layout: None,
        module: &module,
        entry_point: Some(name),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Kernels set what they read.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    })
}

/// Where copies between buffers begin and end.
fn aligned(len: usize) -> u64 {
    (len as u64).next_multiple_of(4)
}

impl Inner {
    fn run(
        &mut self,
        uploads: &[(Slot, Bytes<'_>)],
        made: &[(Slot, usize)],
        dispatches: &[&Dispatch<'_>],
        wanted: &[(Slot, usize)],
        timeout: Duration,
    ) -> Result<Vec<u8>, String> {
        for (slot, len) in
            uploads.iter().map(|(slot, bytes)| (*slot, bytes.len())).chain(made.iter().copied())
        {
            self.grow(slot, len)?;
        }
        let mut encoder = self.device.create_command_encoder(&Default::default());
        self.upload(uploads, &mut encoder, timeout)?;
        for dispatch in dispatches.iter().filter(|dispatch| dispatch.groups.0 > 0 && dispatch.groups.1 > 0) {
            self.dispatch(dispatch, &mut encoder)?;
        }
        let len: u64 = wanted.iter().map(|(_, len)| aligned(*len)).sum();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let down = room(&self.device, &mut self.down, len, self.largest, usage)?.clone();
        let mut at = 0;
        for (slot, len) in wanted.iter().filter(|(_, len)| *len > 0) {
            encoder.copy_buffer_to_buffer(self.buffer(*slot)?, 0, &down, at, aligned(*len));
            at += aligned(*len);
        }
        self.queue.submit([encoder.finish()]);
        if len == 0 {
            return self.wait(None, timeout).map(|()| Vec::new());
        }
        let (tell, mapped) = channel();
        down.map_async(wgpu::MapMode::Read, ..len, move |result| {
            let _ = tell.send(result.is_ok());
        });
        self.wait(Some(&mapped), timeout)?;
        let view = down.get_mapped_range(..len).map_err(|error| error.to_string())?;
        let bytes = view.to_vec();
        drop(view);
        down.unmap();
        Ok(bytes)
    }

    /// Waits for what was submitted, and a buffer.
    fn wait(&self, mapped: Option<&Receiver<bool>>, timeout: Duration) -> Result<(), String> {
        let poll = wgpu::PollType::Wait { submission_index: None, timeout: Some(timeout) };
        let polled = self.device.poll(poll);
        if let Some(trouble) = &*self.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(trouble.clone());
        }
        polled.map_err(|error| format!("it did not answer within {} s ({error})", timeout.as_secs()))?;
        match mapped.map(Receiver::try_recv) {
            None | Some(Ok(true)) => Ok(()),
            Some(Ok(false) | Err(TryRecvError::Disconnected)) => Err("its memory cannot be read".to_string()),
            Some(Err(TryRecvError::Empty)) => Err("its memory is not there in time".to_string()),
        }
    }

    fn buffer(&self, slot: Slot) -> Result<&wgpu::Buffer, String> {
        self.buffers[slot as usize].as_ref().ok_or_else(|| format!("{slot:?} was never made"))
    }

    fn grow(&mut self, slot: Slot, len: usize) -> Result<(), String> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let place = &mut self.buffers[slot as usize];
        room(&self.device, place, aligned(len), self.largest, usage).map(|_| ())
    }

    fn upload(
        &mut self,
        uploads: &[(Slot, Bytes<'_>)],
        encoder: &mut wgpu::CommandEncoder,
        timeout: Duration,
    ) -> Result<(), String> {
        let len: u64 = uploads.iter().map(|(_, bytes)| aligned(bytes.len())).sum();
        if len == 0 {
            return Ok(());
        }
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let up = room(&self.device, &mut self.up, len, self.largest, usage)?.clone();
        let (tell, mapped) = channel();
        up.map_async(wgpu::MapMode::Write, ..len, move |result| {
            let _ = tell.send(result.is_ok());
        });
        self.wait(Some(&mapped), timeout)?;
        let mut view = up.get_mapped_range_mut(..len).map_err(|error| error.to_string())?;
        let mut at = 0;
        for (slot, bytes) in uploads.iter().filter(|(_, bytes)| bytes.len() > 0) {
            let start = at as u64;
            match bytes {
                Bytes::Words(words) => {
                    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                    view.slice(at..at + bytes.len()).copy_from_slice(&bytes);
                }
                Bytes::Pieces(pieces, _) => {
                    let mut to = at;
                    for piece in *pieces {
                        view.slice(to..to + piece.len()).copy_from_slice(piece);
                        to += aligned(piece.len()) as usize;
                    }
                }
            }
            at += aligned(bytes.len()) as usize;
            encoder.copy_buffer_to_buffer(&up, start, self.buffer(*slot)?, 0, aligned(bytes.len()));
        }
        drop(view);
        up.unmap();
        Ok(())
    }

    fn dispatch(&self, dispatch: &Dispatch<'_>, encoder: &mut wgpu::CommandEncoder) -> Result<(), String> {
        let pipeline = &self.pipelines[dispatch.kernel as usize];
        let entries = dispatch.slots.iter().zip(0..).map(|(slot, binding)| {
            Ok(wgpu::BindGroupEntry { binding, resource: self.buffer(*slot)?.as_entire_binding() })
        });
        let entries = entries.collect::<Result<Vec<_>, String>>()?;
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[]);
        let (x, y) = dispatch.groups;
        pass.dispatch_workgroups(x as u32, y as u32, 1);
        Ok(())
    }
}

/// A buffer of so many bytes at least in `place`: the one that is there, or a new one.
fn room<'p>(
    device: &wgpu::Device,
    place: &'p mut Option<wgpu::Buffer>,
    len: u64,
    largest: u64,
    usage: wgpu::BufferUsages,
) -> Result<&'p wgpu::Buffer, String> {
    const LEAST: u64 = 4096;
    if len > largest {
        return Err(format!("{len} bytes are more than its buffers hold"));
    }
    if place.as_ref().is_some_and(|buffer| buffer.size() < len) {
        // Its memory goes before more is asked for.
        *place = None;
    }
    Ok(place.get_or_insert_with(|| {
        let size = len.next_power_of_two().clamp(LEAST, largest / 4 * 4);
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        device.create_buffer(&descriptor)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_buffer_holds_loses_the_device_and_nothing_else() {
        let mut device = Device::open(Choice::Any).expect("a driver for Vulkan, as in mesa-vulkan-drivers");
        let lost = device.run(&[], &[(Slot::Plain, usize::MAX / 8)], &[], &[]).expect_err("too large");
        assert!(lost.to_string().contains("more than its buffers hold"), "{lost}");
        assert_eq!(device.encode(&[]), Ok(Vec::new()));
        assert_eq!(device.run(&[], &[], &[], &[]), Err(lost));
    }

    /// What the driver says it has no memory for, and what it says is wrong: neither panics.
    #[test]
    fn an_error_that_wgpu_tells_of_loses_the_device() {
        let mut device = Device::open(Choice::Any).expect("a driver for Vulkan, as in mesa-vulkan-drivers");
        device.inner.as_mut().expect("open").largest = u64::MAX;
        let lost =
            device.run(&[], &[(Slot::Plain, 1 << 50)], &[], &[(Slot::Plain, 4)]).expect_err("too large");
        assert!(lost.to_string().contains("is no longer used"), "{lost}");
        assert_eq!(device.run(&[], &[], &[], &[]), Err(lost));
    }
}
