package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"kaniko-build/executor"
	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/executor/runner/local"
)

// Serve is the first process of a pod: it finds out how RUNs can be isolated here, unless
// a rung is asked for, waits for the one who made the pod to come through Attach, and
// builds the node. It ends with that connection.
func Serve(ctx context.Context, version, rung string) (err error) {
	if err := sandbox.Untraceable(); err != nil { // in place a RUN is root beside it
		return err
	}
	g, iso := greeting{Version: version}, executor.Isolation{}
	if uid := os.Geteuid(); uid != 0 {
		g.Error = fmt.Sprintf("it runs as user %d, and steps need the root of their own container: the image, or a policy of the cluster, sets another user", uid)
	} else if iso, g.Isolation, err = isolate(ctx, rung); err != nil {
		g.Error = err.Error()
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", socketPlace)
	if err != nil {
		return fmt.Errorf("listen for who made this pod: %w", err)
	}
	defer l.Close()
	if err := l.(*net.UnixListener).SetDeadline(time.Now().Add(comeTime)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	conn, err := l.Accept()
	stop()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("nobody came who made this pod: %w", err)
	}
	l.Close() // nobody else is let in
	defer conn.Close()
	b, err := json.Marshal(g)
	if err == nil {
		_, err = conn.Write(append(b, '\n'))
	}
	if err != nil || g.Error != "" {
		return errors.Join(err, errors.New(g.Error))
	}
	return executor.ServeAfar(ctx, conn, storePlace, iso, &local.Runner{})
}

const (
	comeTime   = 2 * time.Minute
	attachTime = 30 * time.Second
)

// Attach connects standard input and output with Serve, of the same pod.
func Attach(ctx context.Context, in io.Reader, out io.Writer) error {
	if err := sandbox.Untraceable(); err != nil {
		return err
	}
	conn, err := dial(ctx, socketPlace)
	if err != nil {
		return fmt.Errorf("reach the first process of this pod: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, in)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		ended <- err
	}()
	err = <-ended // either end is the end
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// dial connects to a socket that may not be there yet.
func dial(ctx context.Context, path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	var d net.Dialer
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			return conn, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}
