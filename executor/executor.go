package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"kaniko-build/executor/internal/buildctx"
	"kaniko-build/executor/internal/credential"
	"kaniko-build/executor/internal/dockerfile"
	"kaniko-build/executor/internal/image"
	"kaniko-build/executor/internal/layer"
	"kaniko-build/executor/internal/registry"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/internal/snapshot"
	"kaniko-build/executor/internal/store"
	"kaniko-build/schema/diag"
)

// Options say where and how an Executor works. State and Runner are required.
type Options struct {
	State      string // directory of the store; made if absent
	Passing    bool   // nobody opens it after us: Close removes the blobs
	Runner     Runner
	Jobs       int // steps that execute at once, over all nodes; 0 is as many as their Resources leave CPUs for
	Registries []Registry
	Getenv     func(string) string
	Sink       Sink // nil drops the events
	// Pull insists on asking what a tag is now. Without it a registry that cannot
	// be reached is answered for by what it said last, with a warning.
	Pull  bool
	Epoch *int64 // SOURCE_DATE_EPOCH of the environment

	// SnapshotMode is what tells a changed file where RUNs happen in a root of which
	// no overlay tells the changes: "" or "full", "redo" (metadata), "time" (of writing).
	SnapshotMode string
	// IgnorePaths, absolute, are in no layer that is made here, nor is what is below
	// them. On rung inplace they are left alone.
	IgnorePaths []string

	Others       Registry // hosts that Registries does not name; without Host and Mirrors
	PrivatePlain bool     // private IPv4 addresses may speak plain http, which is tried after https
	Retries      int      // of a request to a registry; 0 is the default
	Warmed       Warmed   // images that Warm has put down

	// CredentialSources are asked beside the docker config, in the order of
	// CredentialSources(); nil is all of them.
	CredentialSources []string
}

// CredentialSources are the names of what is asked for credentials beside the
// docker config.
func CredentialSources() []string { return credential.Sources() }

// Credential asks one source for the name and password for a registry's host, as
// docker's credential helpers do. ok is false when it knows none.
func Credential(ctx context.Context, getenv func(string) string, source, host string) (user, secret string, ok bool, err error) {
	return credential.Get(ctx, credential.Options{Getenv: getenv}, source, host)
}

// Registry is how one registry is reached.
type Registry struct {
	Host     string   // "docker.io" for the hub
	Mirrors  []string // tried in order, before the registry itself
	Insecure bool     // plain http, or https with any certificate
	Strict   bool     // when no mirror has it, do not ask the registry itself
	CA       []byte   // PEM, trusted beside the system's
	AnyCert  bool     // https with any certificate
	Cert     []byte   // PEM, of a client certificate
	Key      []byte   // PEM, of its key
	Retries  int      // of a request; 0 is that of Options, negative none
}

// Compression is how layers are compressed. The zero value is gzip.
type Compression = layer.Compression

// Algorithm names a compression: gzip, zstd or none.
type Algorithm = layer.Algorithm

// Runner starts the core of a node in an unprivileged container of its own.
type Runner interface {
	// Start starts a container that sees the store and nothing else of the
	// host, and connects its core to conn, which stays the caller's. The
	// container ends when the connection does, and at once with Kill.
	Start(ctx context.Context, iso Isolation, at Site, conn *os.File) (Container, error)
	// Probe says what kind of container this machine gives, as found by
	// building something very small in one. A machine that gives none is a
	// *MachineError.
	Probe(ctx context.Context, store string) (Isolation, error)
}

// Site is what a node needs of the machine that it starts on.
type Site struct {
	Store string
	// StoreFile is the directory Store, where that is no path that the node has; the
	// caller's to close.
	StoreFile *os.File
	Temp      string // of Isolation.Elsewhere: a directory for the runner's own use, until the node has ended
	// Where the node has the machine's own root: paths to leave alone, Keep
	// those that are there now.
	Keep, Ignore []string
	Ends         bool   // the machine is a container that ends with this process
	Waiting      func() // called once if another node has that root
	// Arches are the architectures (GOARCH) whose programs the node will execute,
	// other than the machine's own; sorted.
	Arches    []string
	Resources Resources // of the node, for who can make limits of them

	// Of Isolation.Afar, where Arches are those of all RUNs: the node's name, the
	// platform of its image, and whom to tell what is waited for, and once where it is
	// built: why is what a better isolation lacks there.
	Node, Platform string
	Tell           func(text string)
	Placed         func(text, why string)
}

// Container is a started core.
type Container interface {
	// Wait returns when nothing of the container is left.
	Wait() error
	// Kill ends it and everything in it at once.
	Kill()
}

// Isolation is the kind of container that nodes get.
type Isolation struct {
	Rung sandbox.Rung
	IDs  sandbox.IDMap
	Walk bool // no overlay can be mounted in the store: what a RUN changed is found by a walk
	// Elsewhere says of rung inplace that each node gets a root of its own: that of a
	// container that the Runner makes, with /kaniko to leave alone, not of this process.
	Elsewhere bool
	// Afar says that it is a container of another machine, which the Runner, an Afar,
	// starts.
	Afar bool
}

// MemoryError is the end of a Container whose processes wanted more memory than the
// kernel was told to let them have, so that it ended some.
type MemoryError struct {
	Limit int64 // bytes
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("the kernel ended a process of this image, which wanted far more than the %d MiB of memory that are allowed\n  hint: raise the memory of its resources, or have it use less", e.Limit>>20)
}

// takesRoot tells whether nodes are built in the root of this very process.
func (i Isolation) takesRoot() bool { return i.Rung == sandbox.InPlace && !i.Elsewhere }

// MachineError says that this machine lacks what is needed, and the remedy.
type MachineError struct {
	What   string
	Remedy string
}

func (e *MachineError) Error() string {
	if e.Remedy == "" {
		return e.What
	}
	return e.What + "\n  hint: " + e.Remedy
}

// Executor inspects and builds nodes. Its methods may be called from several
// goroutines.
type Executor struct {
	opts     Options
	store    *store.Store
	registry *registry.Client
	keys     *credential.Keychain
	tokens   *tokens
	fetcher  *buildctx.Fetcher
	caches   *caches

	listings listings
	scans    scans
	reading  chan struct{} // as many layers at once as steps
	listed   atomic.Bool   // a round has put listings into the store

	isolation func() (Isolation, error) // probed once, when first needed

	hashers  *hashers
	syntaxes dockerfile.Syntaxes // of nodes
	of       *Executor           // whose round this is; nil for one that was opened

	mu      sync.Mutex
	closed  []func() error           // what inspected nodes hold open
	layouts map[string]*image.Layout // by oci-layout reference
	warmed  map[digest.Digest]string // files of Options.Warmed; nil before the first look
}

// Open opens the store and gets ready to build. It starts nothing.
func Open(ctx context.Context, o Options) (*Executor, error) {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if o.Sink == nil {
		o.Sink = func(Event) {}
	}
	weighted := o.Jobs <= 0
	if weighted {
		o.Jobs = runtime.NumCPU()
	}
	iso, err := o.Runner.Probe(ctx, o.State)
	var machine *MachineError
	if err != nil && !errors.As(err, &machine) {
		return nil, err
	}
	if iso.takesRoot() {
		o.Jobs, weighted = 1, false // there is one root
	}
	if _, err := snapshot.ParseMode(o.SnapshotMode); err != nil {
		return nil, err
	}
	o.IgnorePaths = slices.Clone(o.IgnorePaths)
	for i, p := range o.IgnorePaths {
		if o.IgnorePaths[i] = path.Clean(p); !path.IsAbs(p) || path.Clean(p) == "/" {
			return nil, &diag.Problem{What: fmt.Sprintf("path to ignore %q: write an absolute path that is not the root", p)}
		}
	}
	slices.Sort(o.IgnorePaths)
	st, err2 := store.Open(o.State, storeOptions(iso))
	if err2 != nil {
		return nil, err2
	}
	if err2 := st.Hold(); err2 != nil {
		return nil, errors.Join(err2, st.Close())
	}
	keys := credential.New(credential.Options{Sources: o.CredentialSources, Getenv: o.Getenv})
	reg, err2 := newRegistry(o, st, keys)
	if err2 != nil {
		return nil, errors.Join(err2, st.Close())
	}
	x := &Executor{
		opts: o, store: st, registry: reg, keys: keys, tokens: newTokens(o.Jobs, weighted),
		fetcher: &buildctx.Fetcher{Dir: st.FilesDir("fetched"), Env: gitEnv(o.Getenv), NoCommand: iso.takesRoot(), Use: st.Use},
		hashers: &hashers{store: st, dirs: map[string]*buildctx.Hasher{}}, layouts: map[string]*image.Layout{},
		isolation: func() (Isolation, error) { return iso, err },
		caches:    newCaches(ctx), reading: make(chan struct{}, o.Jobs),
	}
	if err := x.sweep(ctx); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return x, nil
}

// storeOptions are those of a store that nodes with this isolation write into.
func storeOptions(iso Isolation) store.Options {
	o := store.Options{Owner: os.Getuid()}
	if uid, ok := iso.IDs.HostUID(0); ok && int(uid) != os.Getuid() && !iso.Afar {
		gid, _ := iso.IDs.HostGID(0) // both maps have a root
		o.NodeOwner = &[2]int{int(uid), int(gid)}
	}
	return o
}

// full tells whether nodes have a full range of ids, or none are started.
func (x *Executor) full() bool {
	iso, err := x.isolation()
	return err != nil || !iso.IDs.Single()
}

// Close waits a bounded time for uploads to caches, and releases the store and
// all inspected nodes. It sweeps once more, for a
// few seconds even when ctx has ended: containers of this run may have been
// killed, and those of an earlier one may still have been dying at Open.
func (x *Executor) Close(ctx context.Context) error {
	if x.of != nil {
		if x.listings.any() {
			x.of.listed.Store(true)
		}
		x.listings.forget()
		return x.release()
	}
	x.finishCaches(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := errors.Join(x.sweep(ctx), x.release(), x.hashers.save())
	if x.listings.any() || x.listed.Load() {
		err = errors.Join(err, x.store.TrimListings(ctx))
	}
	if x.opts.Passing {
		err = errors.Join(err, x.store.Abandon())
	}
	if e := x.store.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("close the store: %w", e))
	}
	return err
}

// release closes what inspected nodes hold open.
func (x *Executor) release() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	for _, f := range x.closed {
		err = errors.Join(err, f())
	}
	x.closed = nil
	return err
}

func (x *Executor) onClose(f func() error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = append(x.closed, f)
}

// Jobs is how many steps execute at once, if each uses one CPU.
func (x *Executor) Jobs() int { return x.opts.Jobs }

// Image is a named image of the store.
type Image struct {
	Name    string
	Digest  digest.Digest // of its manifest
	Size    int64         // bytes of config and layers, compressed
	Created time.Time     // when the name was given
}

// Images lists the named images of the store by name.
func (x *Executor) Images() ([]Image, error) {
	list, err := x.store.Images()
	if err != nil {
		return nil, err
	}
	out := make([]Image, len(list))
	for i, l := range list {
		out[i] = Image{Name: l.Name, Digest: l.Descriptor.Digest, Size: l.Size, Created: l.Created}
	}
	return out, nil
}
