//! What each message of a frontend's means for the device.

use super::*;

/// What this end does not speak of, and the frontend so may not ask for.
fn unknown<T>() -> VhostResult<T> {
    Err(VhostError::InvalidOperation("it was not agreed on"))
}

impl VhostUserBackendReqHandlerMut for Served {
    fn set_owner(&mut self) -> VhostResult<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> VhostResult<()> {
        self.reset();
        Ok(())
    }

    fn reset_device(&mut self) -> VhostResult<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> VhostResult<u64> {
        Ok(self.device.features() | FEATURES | PROTOCOL)
    }

    fn set_features(&mut self, features: u64) -> VhostResult<()> {
        if features & !(self.device.features() | FEATURES | PROTOCOL) != 0 {
            return Err(VhostError::FeatureMismatch);
        }
        self.features = features & !PROTOCOL;
        // Without them there is no message that enables a ring.
        if features & PROTOCOL == 0 {
            self.lines.iter_mut().for_each(|line| line.enabled = true);
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        _files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> VhostResult<Option<Vec<VhostUserMemoryRegionBase>>> {
        let mut known = Vec::with_capacity(regions.len());
        for region in regions {
            let VhostUserMemoryRegion { guest_phys_addr, memory_size, user_addr, mmap_offset } =
                *region;
            if !self.is_ours(guest_phys_addr, memory_size, mmap_offset) {
                return Err(VhostError::InvalidParam);
            }
            known.push(Region { frontend: user_addr, guest: guest_phys_addr, len: memory_size });
        }
        self.regions = known;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> VhostResult<()> {
        let ring = &mut self.ring(index)?.0.ring;
        let size = u16::try_from(num).map_err(|_| virtio_queue::Error::InvalidSize);
        let set = size.and_then(|size| ring.try_set_size(size));
        set.map_err(|e| self.fail(e))
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> VhostResult<()> {
        let [descriptor, available, used] =
            [descriptor, available, used].map(|address| self.guest(address));
        let mem = self.mem.clone();
        let ring = &mut self.ring(index)?.0.ring;
        let set = || -> Result<(), virtio_queue::Error> {
            ring.try_set_desc_table_address(descriptor?)?;
            ring.try_set_avail_ring_address(available?)?;
            ring.try_set_used_ring_address(used?)?;
            let next = ring.used_idx(&mem, Ordering::Relaxed)?.0;
            ring.set_next_used(next);
            Ok(())
        };
        set().map_err(|e| self.fail(e))
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> VhostResult<()> {
        let base = u16::try_from(base).map_err(|_| VhostError::InvalidParam)?;
        self.ring(index)?.0.ring.set_next_avail(base);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> VhostResult<VhostUserVringState> {
        Ok(VhostUserVringState::new(index, self.stop(index)?.into()))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> VhostResult<()> {
        // Without an eventfd the ring would have to be polled.
        let kick = Some(kick.ok_or(VhostError::InvalidParam)?);
        self.ring(index.into())?.1.kick = kick;
        self.start(index.into())
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> VhostResult<()> {
        self.ring(index.into())?.1.call = call;
        Ok(())
    }

    fn set_vring_err(&mut self, _index: u8, _err: Option<File>) -> VhostResult<()> {
        Ok(())
    }

    fn get_protocol_features(&mut self) -> VhostResult<VhostUserProtocolFeatures> {
        type Features = VhostUserProtocolFeatures;
        Ok(Features::MQ | Features::REPLY_ACK | Features::CONFIG)
    }

    fn set_protocol_features(&mut self, _features: u64) -> VhostResult<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> VhostResult<u64> {
        Ok(self.queues.len() as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> VhostResult<()> {
        let (_, line) = self.ring(index)?;
        line.enabled = enable;
        line.again |= enable && line.kick.is_some();
        Ok(())
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> VhostResult<Vec<u8>> {
        // The crate has checked the size against the protocol's longest.
        let mut config = vec![0; size as usize];
        self.device.read_config(offset.into(), &mut config);
        Ok(config)
    }

    fn set_config(
        &mut self,
        offset: u32,
        config: &[u8],
        _flags: VhostUserConfigFlags,
    ) -> VhostResult<()> {
        self.device.write_config(offset.into(), config);
        Ok(())
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> VhostResult<()> {
        unknown()
    }

    fn get_shared_object(&mut self, _object: VhostUserSharedMsg) -> VhostResult<File> {
        unknown()
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> VhostResult<(VhostUserInflight, File)> {
        unknown()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> VhostResult<()> {
        unknown()
    }

    fn get_max_mem_slots(&mut self) -> VhostResult<u64> {
        unknown()
    }

    fn add_mem_region(
        &mut self,
        _region: &VhostUserSingleMemoryRegion,
        _file: File,
        _postcopy: Option<bool>,
    ) -> VhostResult<Option<VhostUserMemoryRegionBase>> {
        unknown()
    }

    fn remove_mem_region(&mut self, _region: &VhostUserSingleMemoryRegion) -> VhostResult<()> {
        unknown()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> VhostResult<Option<File>> {
        unknown()
    }

    fn check_device_state(&mut self) -> VhostResult<()> {
        unknown()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> VhostResult<()> {
        unknown()
    }

    fn get_shmem_config(&mut self) -> VhostResult<VhostUserShMemConfig> {
        unknown()
    }
}
