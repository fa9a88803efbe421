// A loader of Tidegate as a hook of Preact.
import { useEffect, useState } from "preact/hooks";

/**
 * Returns the values of a loader so far; each change renders the component again.
 *
 * @template T
 * @param {import("/__tidegate/client.js").Loader<T>} loader
 */
export function useLoader(loader) {
  const now = () => ({ status: loader.status, value: loader.value, error: loader.error });
  const [state, setState] = useState(now);
  useEffect(() => loader.subscribe(() => setState(now())), [loader]);
  return state;
}
