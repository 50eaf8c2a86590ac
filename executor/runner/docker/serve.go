package docker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/runner/local"
)

// Serve is the inside of a container: it takes the node's connection from the socket
// and runs the node in this container's root. What goes wrong is told there.
func Serve(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("reach who started this container: %w", err)
	}
	line, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("internal error: no unix socket")
	}
	defer line.Close()
	var out outcome
	if err := serve(ctx, line); err != nil {
		out.Err = err.Error()
	}
	b, err := json.Marshal(out)
	if err == nil {
		_, err = line.Write(append(b, '\n'))
	}
	return err
}

func serve(ctx context.Context, line *net.UnixConn) error {
	o, conn, store, err := receive(line)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer store.Close()
	if err := ours(store); err != nil {
		return err
	}
	iso := executor.Isolation{Rung: sandbox.InPlace, IDs: sandbox.SameMap()}
	at := executor.Site{StoreFile: store, Keep: o.Keep, Ignore: o.Ignore, Arches: o.Arches, Ends: os.Getpid() == 1}
	node, err := (&local.Runner{}).Start(ctx, iso, at, conn)
	if err != nil {
		return err
	}
	return errors.Join(conn.Close(), node.Wait()) // the mount of the store lasts as long as its first descriptor
}

// receive takes what send sent.
func receive(line *net.UnixConn) (o order, conn, store *os.File, err error) {
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(2*4))
	n, oobn, _, _, err := line.ReadMsgUnix(b, oob)
	if err != nil {
		return o, nil, nil, fmt.Errorf("wait for the node's connection: %w", err)
	}
	var fds []int
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		fds, _ = unix.ParseUnixRights(&messages[0]) // none
	}
	if len(fds) != 2 {
		return o, nil, nil, errors.New("internal error: the node's connection did not come")
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	conn, store = os.NewFile(uintptr(fds[0]), "outside"), os.NewFile(uintptr(fds[1]), "store")
	text, err := bufio.NewReader(io.MultiReader(bytes.NewReader(b[:n]), line)).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		return o, nil, nil, errors.Join(fmt.Errorf("read the node's order: %w", err), conn.Close(), store.Close())
	}
	return o, conn, store, nil
}

// ours says whether root here is the root that owns the store.
func ours(store *os.File) error {
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return fmt.Errorf("read the map of users: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(store.Fd()), &st); err != nil {
		return fmt.Errorf("look at the store: %w", err)
	}
	if strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295" || st.Uid != 0 || os.Geteuid() != 0 {
		return &executor.MachineError{What: "root in the engine's containers is not this machine's root, so that it cannot write into the store",
			Remedy: "use an engine without user namespaces of its own (userns-remap, rootless), or runner local"}
	}
	return nil
}
