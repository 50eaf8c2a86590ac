package emulator

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// machine is how programs of an architecture begin, and what QEMU calls it.
type machine struct {
	qemu  string
	class elf.Class
	data  elf.Data
	code  elf.Machine
}

var machines = map[string]machine{
	"386":      {"i386", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_386},
	"amd64":    {"x86_64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_X86_64},
	"arm":      {"arm", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_ARM},
	"arm64":    {"aarch64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_AARCH64},
	"loong64":  {"loongarch64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_LOONGARCH},
	"mips64le": {"mips64el", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_MIPS},
	"ppc64le":  {"ppc64le", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_PPC64},
	"riscv64":  {"riscv64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_RISCV},
	"s390x":    {"s390x", elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_S390},
}

// natives are architectures whose programs a processor runs beside its own.
var natives = map[string][]string{"amd64": {"386"}, "mips64le": {"mipsle"}, "ppc64le": {}}

// Native tells whether a host runs programs of arch as they are.
func Native(host, arch string) bool { return host == arch || slices.Contains(natives[host], arch) }

// headerSize is the bytes of an ELF header up to and with e_machine, which is all
// that tells architectures apart.
const headerSize = 20

// pattern is the bytes that a program of the machine begins with, and which of
// them count: not the ABI, and executables are of the type 2 or 3.
func (m machine) pattern() (magic, mask []byte) {
	magic = make([]byte, headerSize)
	copy(magic, elf.ELFMAG)
	magic[elf.EI_CLASS], magic[elf.EI_DATA], magic[elf.EI_VERSION] = byte(m.class), byte(m.data), byte(elf.EV_CURRENT)
	mask = slices.Repeat([]byte{0xff}, headerSize)
	mask[elf.EI_OSABI] = 0
	var order binary.ByteOrder = binary.LittleEndian
	kind := 16
	if m.data == elf.ELFDATA2MSB {
		order, kind = binary.BigEndian, 17
	}
	order.PutUint16(magic[16:], uint16(elf.ET_EXEC))
	mask[kind] = 0xfe
	order.PutUint16(magic[18:], uint16(m.code))
	return magic, mask
}

// Line is what is written to binfmt_misc's register file so that interpreter, a
// path, runs programs of arch. It is opened at once (F) and so need not be in any
// root, gets their argv[0] (P), and set-user-ID programs keep their meaning (C).
func Line(arch, interpreter string) (string, error) {
	m, ok := machines[arch]
	if !ok {
		return "", fmt.Errorf("nothing is known of the architecture %s", arch)
	}
	magic, mask := m.pattern()
	return fmt.Sprintf(":qemu-%s:M::%s:%s:%s:POCF", m.qemu, escaped(magic), escaped(mask), interpreter), nil
}

func escaped(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	return s.String()
}

// Dir is where the host's handlers are listed, if they are.
const Dir = "/proc/sys/fs/binfmt_misc"

// Handled tells whether the handlers in dir, a mounted binfmt_misc, include one
// for arch that works in any root (F).
func Handled(dir, arch string) bool {
	m, ok := machines[arch]
	if !ok {
		return false
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	header, _ := m.pattern()
	for _, e := range list {
		if e.Name() == "register" || e.Name() == "status" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err == nil && takes(string(b), header) {
			return true
		}
	}
	return false
}

// takes tells whether a handler, as binfmt_misc describes it, is for programs
// that begin with header.
func takes(handler string, header []byte) bool {
	var enabled, fixed bool
	var offset int
	var magic, mask []byte
	for line := range strings.Lines(handler) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "enabled":
			enabled = true
		case "flags:":
			fixed = strings.Contains(value, "F")
		case "offset":
			fmt.Sscanf(value, "%d", &offset)
		case "magic":
			fmt.Sscanf(value, "%x", &magic)
		case "mask":
			fmt.Sscanf(value, "%x", &mask)
		}
	}
	if !enabled || !fixed || offset != 0 || len(magic) == 0 || len(magic) > len(header) {
		return false
	}
	for i, c := range magic {
		take := byte(0xff)
		if i < len(mask) {
			take = mask[i]
		}
		if (c^header[i])&take != 0 {
			return false
		}
	}
	return true
}

// ErrAbsent says that no QEMU was found.
var ErrAbsent = errors.New("no static QEMU")

// Find is the path of a static QEMU for arch in one of dirs. A QEMU that needs
// libraries of the host is of no use in an image.
func Find(arch string, dirs []string) (string, error) {
	m, ok := machines[arch]
	if !ok {
		return "", fmt.Errorf("nothing is known of the architecture %s", arch)
	}
	for _, name := range []string{"qemu-" + m.qemu + "-static", "qemu-" + m.qemu} {
		for _, dir := range dirs {
			if !filepath.IsAbs(dir) {
				continue
			}
			p := filepath.Join(dir, name)
			st, err := os.Stat(p)
			if errors.Is(err, fs.ErrNotExist) || err == nil && (!st.Mode().IsRegular() || st.Mode()&0o111 == 0) {
				continue
			}
			if err != nil {
				return "", err
			}
			if static(p) {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("%w for %s: neither qemu-%s-static nor a qemu-%[3]s that needs no libraries", ErrAbsent, arch, m.qemu)
}

// static tells whether a program starts without a dynamic linker.
func static(name string) bool {
	f, err := elf.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}
