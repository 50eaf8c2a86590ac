package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"kaniko-build/executor/internal/sandbox"
	"kaniko-build/schema/diag"
)

// errEnded says that a process that Start started ended with exit code 0.
var errEnded = errors.New("the process has ended")

// Start runs a command in the image of a built node, in a container of its own as a
// RUN has it, until it ends or ctx does, which kills it. Its root is the layers that lie in
// the store, and what it writes is dropped. It has the network of the host, and the
// environment, user and directory of the image. args stand for the image's CMD; none
// leaves that. Events, of the node name, tell when it starts and what it prints. It holds
// no token. going, if not nil, is called with the process when its container is there. exit
// is the process's own.
func (x *Executor) Start(ctx context.Context, n *Node, name string, args []string, going func(*Process)) (exit int, err error) {
	iso, err := x.isolation()
	if err != nil {
		return 0, err
	}
	if iso.Rung == sandbox.InPlace {
		return 0, &MachineError{
			What:   "an image cannot be run where its builds need the root of this container",
			Remedy: "let the container make user namespaces (docker run --security-opt seccomp=unconfined, or --security-opt apparmor=unconfined too; doctor tells what is missing), or watch without --run and have watch.onSuccess start what --load or --push delivered",
		}
	}
	config := n.program.Target().Config.Config
	if len(args) == 0 {
		args = config.Cmd
	}
	argv := slices.Concat(config.Entrypoint, args)
	if len(argv) == 0 {
		return 0, &diag.Problem{What: fmt.Sprintf("the image of %s says no command", n.ID), Hint: "write one after --, or CMD into the Dockerfile"}
	}
	words, err := json.Marshal(argv)
	if err != nil {
		return 0, fmt.Errorf("encode the command: %w", err)
	}
	host := n.ID
	r := Request{
		ID: name, Platform: n.Platform, NoCache: true, Dockerfile: Text{Name: name, Data: []byte("FROM image\nRUN " + string(words) + "\n")},
		Contexts: map[string]string{"image": "node:" + n.ID}, Args: map[string]*string{"BUILDKIT_SANDBOX_HOSTNAME": &host}, Check: "skip=all",
	}
	round := x.Round()
	defer func() { err = errors.Join(err, round.Close(context.WithoutCancel(ctx))) }()
	nodes, err := round.InspectBeside(ctx, []Request{r}, map[string]*Node{n.ID: n})
	if err != nil {
		return 0, err
	}
	nodes[0].job.Goes, nodes[0].going = true, going
	_, err = round.runNode(ctx, nodes[0], iso)
	var step *StepError
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.As(err, &step) && (step.Exit != 0 || step.Err.Error() == errEnded.Error()):
		return step.Exit, nil
	}
	return 0, err
}
