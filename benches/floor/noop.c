/* A static binary that does nothing: the cost of executing any program, and the minimum for every call of the plugin. */
int main(void) { return 0; }
