// Command api tells what the shop sells.
package main

import (
	"fmt"
	"net/http"
	"os"

	"shop/lib/httpx"
	"shop/lib/money"
)

func main() {
	httpx.Serve("8081", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "tea %s\n", money.Cents(349).In(os.Getenv("SHOP_CURRENCY")))
	}))
}
