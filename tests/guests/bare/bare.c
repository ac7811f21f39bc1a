/*
 * A guest without a kernel: it does what a broken or hostile kernel may do. It starts at Linux's 64-bit entry (in long
 * mode, the first 4 GiB mapped, RSI at the boot parameters) and takes its orders from the command line:
 *   do=fault    meets an exception that it has no handler for
 *   do=loop     never boots
 *   do=nowhere  executes a device's registers, which KVM cannot
 *   do=devices  writes garbage to every device's registers and rings
 *   do=ports    writes garbage to every port
 * It says on the serial port what it is about to do. The last two reset the machine when they are done.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define SERIAL 0x3f8
#define KEYBOARD 0x64

#define DEVICES_MAX 24
#define MAGIC 0x74726976

/* Where the virtio devices are: on sbx's own board around KVM, and on QEMU's microvm. */
static const struct board { u64 devices, device_size; } kvm = {0xd0000000, 0x1000}, microvm = {0xfeb00000, 0x200};

/* Registers of virtio over MMIO (virtio 1.2, 4.2.2). */
enum {
    DEVICE_FEATURES = 0x10, DEVICE_FEATURES_SEL = 0x14, DRIVER_FEATURES = 0x20, DRIVER_FEATURES_SEL = 0x24,
    QUEUE_SEL = 0x30, QUEUE_NUM_MAX = 0x34, QUEUE_NUM = 0x38, QUEUE_READY = 0x44, QUEUE_NOTIFY = 0x50, STATUS = 0x70,
    QUEUE_DESC = 0x80, QUEUE_AVAIL = 0x90, QUEUE_USED = 0xa0,
};

/* Memory for rings, a page each. */
#define RINGS 0x1800000UL
#define RINGS_PAGES 64

static void outb(u16 port, u8 value) {
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void outl(u16 port, u32 value) {
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static u8 inb(u16 port) {
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void say(const char *text) {
    for (; *text; text++)
        outb(SERIAL, (u8)*text);
}

static u64 state = 88172645463325252UL;

/* xorshift64: the same garbage every time. */
static u64 garbage(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static u32 peek(u64 device, u32 at) {
    return *(volatile u32 *)(device + at);
}

static void poke(u64 device, u32 at, u32 value) {
    *(volatile u32 *)(device + at) = value;
}

/* An address in the rings' memory as a rule, of any alignment now and then, and now and then anywhere. */
static u64 address(void) {
    u64 kind = garbage();
    if (kind % 16 == 0)
        return garbage();
    u64 page = RINGS + garbage() % RINGS_PAGES * 4096;
    return kind % 16 == 1 ? page + garbage() % 4096 : page;
}

static void poke_address(u64 device, u32 at) {
    u64 value = address();
    poke(device, at, (u32)value);
    poke(device, at + 4, (u32)(value >> 32));
}

/* Descriptors and indexes, half of them such as a driver could have written. */
static void fill_rings(void) {
    volatile u64 *words = (u64 *)RINGS;
    for (u64 page = 0; page < RINGS_PAGES; page++)
        for (u64 i = 0; i < 32; i += 2) {
            words[page * 512 + i] = address();
            u64 length = garbage() % 4 ? garbage() % 5000 : garbage();
            words[page * 512 + i + 1] = (length & 0xffffffff) | garbage() % 8 << 32 | garbage() % 16 << 48;
        }
}

/* As a driver does it, but for what it writes. */
static void start_device(u64 device) {
    poke(device, STATUS, 0);
    poke(device, STATUS, 1);
    poke(device, STATUS, 3);
    for (u32 half = 0; half < 2; half++) {
        poke(device, DEVICE_FEATURES_SEL, half);
        poke(device, DRIVER_FEATURES_SEL, half);
        u32 features = peek(device, DEVICE_FEATURES);
        poke(device, DRIVER_FEATURES, half ? features : features & (u32)garbage());
    }
    poke(device, STATUS, 11);
    for (u32 queue = 0; queue < 4; queue++) {
        poke(device, QUEUE_SEL, queue);
        u32 most = peek(device, QUEUE_NUM_MAX);
        poke(device, QUEUE_NUM, garbage() % 2 ? most : (u32)garbage() % 300);
        poke_address(device, QUEUE_DESC);
        poke_address(device, QUEUE_AVAIL);
        poke_address(device, QUEUE_USED);
        poke(device, QUEUE_READY, 1);
    }
    poke(device, STATUS, 15);
    for (u32 i = 0; i < 8; i++)
        poke(device, QUEUE_NOTIFY, (u32)garbage() % 5);
}

static void write_any(u64 device) {
    u64 at = device + garbage() % 0x200, value = garbage();
    switch (garbage() % 8) {
    case 0: *(volatile u8 *)at = (u8)value; break;
    case 1: *(volatile u16 *)at = (u16)value; break;
    case 2: *(volatile u64 *)at = value; break;
    case 3: (void)*(volatile u64 *)at; break;
    default: poke(device, (u32)(at - device) & ~3u, (u32)(value % 4 ? value % 16 : value));
    }
}

static void attack_devices(void) {
    struct board board = peek(kvm.devices, 0) == MAGIC ? kvm : microvm;
    for (u32 round = 0; round < 40; round++)
        for (u64 i = 0; i < DEVICES_MAX; i++) {
            u64 device = board.devices + i * board.device_size;
            if (peek(device, 0) != MAGIC)
                continue;
            fill_rings();
            start_device(device);
            for (u32 n = 0; n < 24; n++)
                write_any(device);
        }
}

static void attack_ports(void) {
    for (u32 port = 0; port < 0x10000; port += port < 0x1000 ? 1 : 97) {
        if (port == KEYBOARD || (port & ~7u) == SERIAL)
            continue;
        outb((u16)port, (u8)garbage());
        outl((u16)port, (u32)garbage());
        (void)inb((u16)port);
    }
    for (u32 n = 0; n < 2000; n++)
        outb((u16)(SERIAL + garbage() % 8), (u8)garbage());
}

/* What resets one board is nothing on the other. */
static void reset(void) {
    outb(KEYBOARD, 0xfe);
    *(volatile u8 *)0xfea00202UL = 0x42;
}

static int is(const char *order, const char *name) {
    while (*name && *order == *name)
        order++, name++;
    return !*name && (!*order || *order == ' ');
}

static void obey(const char *order) {
    static const struct { u16 limit; u64 base; } __attribute__((packed)) none;
    if (is(order, "fault")) {
        say("about to fault\n");
        __asm__ volatile("lidt %0; ud2" : : "m"(none));
    } else if (is(order, "nowhere")) {
        say("going nowhere\n");
        ((void (*)(void))(kvm.devices + 0x100))();
    } else if (is(order, "loop")) {
        say("never booting\n");
        for (;;)
            ;
    } else if (is(order, "devices")) {
        attack_devices();
    } else if (is(order, "ports")) {
        attack_ports();
    }
    say("\ndone\n");
    reset();
}

__attribute__((used)) static void begin(const u8 *parameters) {
    const char *line = (const char *)(u64)*(const u32 *)(parameters + 0x228);
    for (; *line; line++)
        if (line[0] == 'd' && line[1] == 'o' && line[2] == '=')
            obey(line + 3);
}

__attribute__((naked, section(".start"), used)) void start(void) {
    __asm__("mov $0x1700000, %rsp; mov %rsi, %rdi; call begin; 1: hlt; jmp 1b");
}
